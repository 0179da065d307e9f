import json

import jax
import pytest
from jax.sharding import PartitionSpec

from evads_jax.errors import UserError
from evads_jax.models import partitioning

EIGHT_DEVICES = """
import dataclasses, jax, jax.numpy as jnp
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl import PromptBatch, SuffixBatch, VideoInputs, VisionConfig

vision = VisionConfig(width=16, layers=1, heads=2, mlp_width=8, patch=2, merge=2, position_grid=3, deepstack=(0,))
config = qwen_vl.QwenVLConfig(vocabulary=40, width=16, layers=2, heads=4, kv_heads=2, head_width=12, mlp_width=20,
                              mrope_sections=(2, 2, 2), vision=vision)
params = qwen_vl.init(config, jax.random.key(0))
B, T, G, S = 4, 6, 2, 3
tokens = jnp.arange(B * T).reshape(B, T) % 40
index = jnp.where(jnp.arange(T) == 2, jnp.arange(B)[:, None], -1)
patches = (jnp.arange(B * 4 * 24).reshape(B, 4, 24) % 251).astype(jnp.uint8)
prompt = PromptBatch(tokens, jnp.full(B, T), jnp.tile(jnp.arange(T)[:, None], (B, 1, 3)), index, jnp.full(B, T),
                     VideoInputs(patches, jnp.full((B, 2), 2)))
suffix = SuffixBatch(tokens[:, : G * S].reshape(B, G, S), jnp.full((B, G), S), jnp.ones((B, G, S), bool))
gradient = jax.jit(jax.grad(lambda p, a, b: qwen_vl.score(p, config, a, b).logprob.sum()))
alone = gradient(params, prompt, suffix)
mesh = partitioning.make_mesh(data=2, fsdp=2, tp=2)
where = partitioning.shardings(qwen_vl.axes(config), mesh, qwen_vl.abstract(config))
with jax.set_mesh(mesh):
    batch = jax.device_put((prompt, suffix), partitioning.batch_sharding(mesh))
    split = gradient(jax.device_put(params, where), *batch)
assert len(jax.device_put(params, where)["text"]["layers"]["gate"].addressable_shards) == 8
for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(split)):
    assert jnp.abs(a - b).max() <= 1e-5 * jnp.abs(a).max() + 1e-7, (a.shape, jnp.abs(a - b).max())
print("equal")
"""


def test_the_rules_split_what_they_name():
    mesh = partitioning.make_mesh()
    where = partitioning.shardings(
        {"w": ("layers", "embed", "mlp")}, mesh, {"w": jax.ShapeDtypeStruct((2, 4, 6), float)}
    )
    assert where["w"].spec == PartitionSpec(None, "fsdp", "tp")


def test_a_name_without_a_rule_is_an_error():
    with pytest.raises(KeyError):
        partitioning.shardings({"w": ("unheard",)}, partitioning.make_mesh(), {"w": jax.ShapeDtypeStruct((2,), float)})


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(UserError, match="needs 4096 devices"):
        partitioning.make_mesh(data=4096)


@pytest.mark.parametrize("size", [0, -1])
def test_an_axis_without_a_size_is_refused_by_name(size):
    with pytest.raises(UserError, match=rf"size {size} \[config.mesh.tp\]"):
        partitioning.make_mesh(tp=size)


ROWS = """
import json, numpy as np, jax
from evads_jax.models import partitioning

hosts = {"halves": lambda d: d.id // 4, "pairs": lambda d: d.id // 2, "interleaved": lambda d: d.id % 2}
told = {}
for sizes in ((1, 8, 1), (2, 2, 2), (2, 1, 4), (1, 4, 1)):
    mesh = partitioning.make_mesh(*sizes)
    placed = jax.device_put(np.arange(16), partitioning.batch_sharding(mesh))
    for name, host in hosts.items():
        held = {}
        for shard in placed.addressable_shards:
            held.setdefault(host(shard.device), set()).update(np.asarray(shard.data).tolist())
        rows = {p: r.tolist() for p, r in partitioning.rows_by_process(16, mesh, host).items()}
        assert rows == {p: sorted(r) for p, r in held.items()}, (sizes, name, rows)
        told[f"{sizes} {name}"] = rows
print(json.dumps(told))
"""


def test_a_process_reads_the_rows_that_its_devices_hold(on_eight_devices):
    told = json.loads(on_eight_devices("-c", ROWS))
    first, last = list(range(8)), list(range(8, 16))
    assert told["(1, 8, 1) halves"] == {"0": first, "1": last}
    assert told["(1, 8, 1) interleaved"]["0"] == [0, 1, 4, 5, 8, 9, 12, 13]  # not neighbours
    assert told["(2, 1, 4) pairs"] == {"0": first, "1": first, "2": last, "3": last}  # tp crosses processes
    assert told["(1, 4, 1) halves"] == {"0": first + last}  # the other process has no device of the mesh


OWN_ROWS = """
import json, re, jax, jax.numpy as jnp, numpy as np
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl import PromptBatch, SuffixBatch, VideoInputs, VisionConfig

vision = VisionConfig(width=16, layers=2, heads=2, mlp_width=24, patch=2, merge=2, position_grid=3, deepstack=(0,))
config = qwen_vl.QwenVLConfig(vocabulary=40, width=16, layers=2, heads=4, kv_heads=2, head_width=12, mlp_width=20,
                              mrope_sections=(2, 2, 2), vision=vision, scan_layers=True, remat=True)
B, units, P, T, G, S = 8, 3, 20, 21, 2, 5  # 480 patches, 120 video tokens, 168 prompt tokens, 80 suffix tokens
ids = jnp.zeros((B, T), int)
prompt = PromptBatch(ids, jnp.full(B, T), jnp.zeros((B, T, 3), int), ids - 1, jnp.full(B, T),
                     VideoInputs(jnp.zeros((B * units, P, 24), jnp.uint8), jnp.full((B * units, 2), 4)))
suffix = SuffixBatch(jnp.zeros((B, G, S), int), jnp.full((B, G), S), jnp.ones((B, G, S), bool))
gradient = jax.jit(jax.grad(lambda p, a, b: qwen_vl.score(p, config, a, b).logprob.sum()))
found = {}
for sizes in ((1, 8, 1), (1, 2, 4)):
    mesh = partitioning.make_mesh(*sizes)
    params = jax.tree.map(jax.device_put, qwen_vl.init(config, jax.random.key(0)),
                          partitioning.shardings(qwen_vl.axes(config), mesh, qwen_vl.abstract(config)))
    with jax.set_mesh(mesh):
        batch = jax.device_put((prompt, suffix), partitioning.batch_sharding(mesh))
        program = gradient.lower(params, *batch).compile().as_text()
    shapes = [[int(n) for n in s.split(",")] for s in set(re.findall(r"(?:f32|bf16|u8)\\[([0-9,]+)\\]", program))]
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    found[str(sizes)] = {
        # The largest array with so many rows, in numbers a row. (The token table is split by columns: a device looks up
        # its columns of all tokens, and they change places.)
        f"{name} {which}": max([int(np.prod(s)) // (rows // k) for s in shapes if rows // k in s], default=0)
        for name, rows in {"patches": 480, "video": 120, "prompt": 168, "suffix": 80}.items()
        for which, k in {"own": shares, "whole": 1}.items()
    }
    # Stacks of a row's 16 numbers from both layers of the decoder: what the backward pass begins a layer with.
    found[str(sizes)]["kept"] = sorted({s[1] for s in shapes if len(s) == 3 and s[0] == 2 and s[2] == 16})
print(json.dumps(found))
"""


def test_no_device_holds_a_whole_row_of_activations_of_anothers_prompts(on_eight_devices):
    width = 16  # of the narrowest activations
    for found in json.loads(on_eight_devices("-c", OWN_ROWS)).values():
        for name in ("patches", "video", "prompt", "suffix"):
            assert found[f"{name} own"] >= width
            assert found[f"{name} whole"] < width
        kept = set(found["kept"])  # and matrices
        assert {80 // 8, 168 // 8} <= kept  # a device of tp keeps a part of its prompts'
        assert not {80 // 2, 168 // 2} & kept


TAKEN = """
import jax, jax.numpy as jnp, numpy as np
from evads_jax.models import partitioning

rng = np.random.default_rng(0)
B, T, n, D = 8, 5, 48, 3
table, direction = rng.normal(size=(n, D)).astype(np.float32), rng.normal(size=(B, T, D)).astype(np.float32)
index = np.arange(B)[:, None] * (n // B) + rng.integers(0, n // B, (B, T))
def form(table, index):
    return (partitioning.take_rows(table, index) * direction).sum()
for sizes in ((1, 8, 1), (2, 2, 2), (1, 1, 8)):
    mesh = partitioning.make_mesh(*sizes)
    with jax.set_mesh(mesh):
        placed = jax.device_put((table, index), partitioning.batch_sharding(mesh))
        np.testing.assert_array_equal(jax.jit(partitioning.take_rows)(*placed), table[index])
        gradient = jax.jit(jax.grad(form))(*placed)
        expected = np.zeros_like(table)
        np.add.at(expected, index, direction)
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
        # Of prompts that the mesh does not divide, a row may lie anywhere.
        far = rng.integers(0, n, (3, T))
        np.testing.assert_array_equal(jax.jit(partitioning.take_rows)(table, far), table[far])
print("equal")
"""


def test_rows_are_taken_from_the_own_device_with_the_gradient_of_a_gather(on_eight_devices):
    assert on_eight_devices("-c", TAKEN) == "equal"


def test_scores_have_the_same_gradient_on_one_device_and_on_eight(on_eight_devices):
    assert on_eight_devices("-c", EIGHT_DEVICES) == "equal"
