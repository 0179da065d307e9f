"""The vocabulary split among devices: same scores, same gradients, and nothing of its size is sent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models import partitioning, vocabulary

PROGRAM = """
import re, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from evads_jax.models import partitioning, vocabulary

n, D, V = 16, 8, 48
hidden, head = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(n, D), (V, D)]))
targets = jnp.arange(n) * 3 % V
def total(form):
    return lambda h, w, t: sum((x * jnp.arange(1.0, n + 1)).sum() for x in form(h, w, t))
form = lambda h, w, t: vocabulary.token_scores(h, w, t, 3)
plain = jax.jit(jax.value_and_grad(total(vocabulary.reference), (0, 1)))(hidden, head, targets)
for data, fsdp, tp in ((2, 1, 4), (1, 2, 4), (2, 4, 1)):
    mesh = partitioning.make_mesh(data, fsdp, tp)
    rows, parts = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P("tp", "fsdp"))
    with jax.set_mesh(mesh):
        inputs = jax.device_put((hidden, head, targets), (rows, parts, rows))
        forward = jax.jit(form).lower(*inputs).compile().as_text()
        both = jax.jit(jax.value_and_grad(total(form), (0, 1))).lower(*inputs).compile()
        split = both(*inputs)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(split)):
        assert jnp.abs(a - b).max() <= 1e-5 * jnp.abs(a).max(), (a, b)
    assert split[1][1].sharding.is_equivalent_to(parts, 2)
    # What is brought together are the columns of a device's own part of the vocabulary, where fsdp splits them.
    for program in (forward, both.as_text()):
        gathered = re.findall(r"= (\\S+?)\\{\\S* all-gather(?:-start)?\\(", program)
        assert set(gathered) == ({f"f32[{V // tp},{D}]"} if fsdp > 1 else set()), gathered
    if tp > 1:  # largest, sums; of each of the chunks of 3 tokens
        chunks = -(-n // (data * fsdp) // 3)
        assert len(re.findall(r"all-reduce(?:-start)?\\(", forward)) <= 2 * chunks, forward
        assert f"f32[{n},{V}]" not in forward and f"f32[{n // (data * fsdp)},{V}]" not in forward
print("equal")
"""


def test_a_split_vocabulary_gives_the_same_scores_and_gradients_and_is_never_gathered(on_eight_devices):
    assert on_eight_devices("-c", PROGRAM) == "equal"


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_never_matter(chunk):
    hidden, head = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(7, 4), (10, 4)]))
    targets = jnp.arange(7)
    found = vocabulary.in_chunks(lambda h, t: vocabulary.reference(h, head, t), hidden, targets, chunk)
    for one, other in zip(found, vocabulary.reference(hidden, head, targets), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(("tokens", "size", "whole"), [(6, 12, True), (5, 12, False), (6, 10, False)])
def test_what_does_not_divide_takes_the_general_form(tokens, size, whole):
    mesh = jax.sharding.AbstractMesh((1, 2, 4), partitioning.MESH_AXES)
    assert vocabulary.is_split(mesh, tokens, size) is whole


def test_one_device_takes_the_general_form():
    assert not vocabulary.is_split(jax.sharding.get_abstract_mesh(), 6, 12)
    assert not vocabulary.is_split(jax.sharding.AbstractMesh((1, 1, 1), partitioning.MESH_AXES), 6, 12)
