"""Checkpoints that transformers wrote (make_checkpoints.py): read, sharded, written back, and refused where broken."""

import dataclasses
import functools
import json
import shutil
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evads_jax.data.tokenizer import train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl import checkpoint, checkpoint_files, checkpoint_names
from evads_jax.models.qwen_vl.checkpoint_config import CLIP_MEAN
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig

FOLDERS = sorted((Path(__file__).parent / "golden" / "checkpoints").iterdir())
QWEN3_4, QWEN3_5 = (Path(__file__).parent / "golden" / "checkpoints" / f"qwen3_vl_{major}" for major in (4, 5))
QWEN2_5_4, QWEN2_5_5 = (Path(__file__).parent / "golden" / "checkpoints" / f"qwen2_5_vl_{major}" for major in (4, 5))
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


EIGHT_DEVICES = """
import sys, jax, numpy as np
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl import checkpoint

folder, out = sys.argv[1:]
config = checkpoint.read_config(folder)
mesh = partitioning.make_mesh(data=2, fsdp=2, tp=2)
where = partitioning.shardings(qwen_vl.axes(config), mesh, qwen_vl.abstract(config))
read, largest = checkpoint._read, {}
def watched(place, layers, index):
    part = read(place, layers, index)
    largest[place.path] = max(largest.get(place.path, 0), part.size / np.prod(place.shape))
    return part
checkpoint._read = watched
split = checkpoint.load_parameters(folder, config, where)
assert largest["text", "layers", "gate"] == largest["text", "layers", "q"] == 1 / 4, largest
assert jax.tree.map(lambda x: x.sharding, split) == where
whole = checkpoint.load_parameters(folder, config)
jax.tree.map(np.testing.assert_array_equal, whole, split)
checkpoint.save_parameters(out, split, config, folder)
print("equal")
"""
SIZES = {
    "qwen3_vl_8b": QwenVLConfig(
        vocabulary=151936, width=4096, layers=36, heads=32, kv_heads=8, head_width=128, mlp_width=12288,
        mrope_sections=(24, 20, 20), tie_embeddings=False,
        vision=VisionConfig(width=1152, layers=27, heads=16, mlp_width=4304, deepstack=(8, 16, 24)),
    ),
    "qwen2_5_vl_7b": QwenVLConfig(
        family="qwen2_5_vl", vocabulary=152064, width=3584, layers=28, heads=28, kv_heads=4, head_width=128,
        mlp_width=18944, mrope_sections=(16, 24, 24), tie_embeddings=False,
        vision=VisionConfig(
            width=1280, layers=32, heads=16, mlp_width=3420, patch=14, window=112, full_attention=(7, 15, 23, 31)
        ),
    ),
}  # fmt: skip


def copy(folder, to):
    shutil.copytree(folder, to)
    return to


def tensors(folder):
    """All tensors of a folder, by the safetensors library."""
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def drawn(config):
    """Parameters of the declared shapes, as NumPy arrays."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), qwen_vl.abstract(config))


def rounded(dtype, x):
    """What storing `x` in a type leaves of it."""
    return np.asarray(x, dtype).astype(np.float32)


def rewrite(path, change):
    """Changes a folder's single safetensors file through the safetensors library."""
    held = load_file(path)
    change(held)
    save_file(held, path, metadata={"format": "pt"})


@each
def test_the_sizes_are_those_that_transformers_wrote(folder):
    config = checkpoint.read_config(folder)
    family, major = folder.name.rsplit("_", 1)
    assert (config.family, config.vocabulary, config.width, config.layers) == (family, 288, 24, 2)
    assert (config.heads, config.kv_heads, config.mlp_width, config.rope_theta) == (4, 2, 40, 1000.0)
    assert config.tie_embeddings == ((family, major) in (("qwen3_vl", "4"), ("qwen2_5_vl", "5")))
    assert (config.vision.layers, config.vision.cell, config.vision.temporal_patch) == (2, 8, 2)
    if family == "qwen3_vl":
        assert (config.head_width, config.mrope_sections) == (12, (2, 2, 2))
        assert (config.vision.position_grid, config.vision.deepstack) == (3, (0,))
        assert config.vision.pixel_mean == (0.5, 0.5, 0.5)
    else:
        assert (config.head_width, config.mrope_sections) == (6, (1, 1, 1))
        assert (config.vision.window, config.vision.full_attention) == (16, (1,))
        assert config.vision.pixel_mean == CLIP_MEAN


def test_both_versions_of_transformers_tell_the_same_sizes():
    for one, other in ((QWEN3_4, QWEN3_5), (QWEN2_5_4, QWEN2_5_5)):
        configs = [dataclasses.replace(checkpoint.read_config(f), tie_embeddings=False) for f in (one, other)]
        assert configs[0] == configs[1]


def test_the_flat_config_of_released_qwen2_5_is_read_like_the_nested_one(tmp_path):
    nested = json.loads((QWEN2_5_4 / "config.json").read_text())
    text = nested.pop("text_config")
    text.pop("model_type")
    text["rope_scaling"] = {"type": "mrope", "mrope_section": text["rope_scaling"]["mrope_section"]}
    (tmp_path / "config.json").write_text(json.dumps(text | nested))
    assert checkpoint.read_config(tmp_path) == checkpoint.read_config(QWEN2_5_4)


def test_pixels_are_normalised_as_the_processor_of_the_folder_says(tmp_path):
    copy(QWEN3_5, tmp_path / "c")
    (tmp_path / "c" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    vision = checkpoint.read_config(tmp_path / "c").vision
    assert (vision.pixel_mean, vision.pixel_std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


@each
def test_a_checkpoint_is_the_declared_tree_in_float32(folder):
    config = checkpoint.read_config(folder)
    loaded, declared = checkpoint.load_parameters(folder, config), qwen_vl.abstract(config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), loaded) == jax.tree.map(lambda x: (x.shape, x.dtype), declared)


@each
def test_import_and_export_give_the_same_bytes(folder, tmp_path):
    config = checkpoint.read_config(folder)
    checkpoint.save_parameters(tmp_path / "out", checkpoint.load_parameters(folder, config), config, folder)
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_matrix_is_transposed_and_its_heads_stand_apart():
    config, held = checkpoint.read_config(QWEN3_4), tensors(QWEN3_4)
    params = checkpoint.load_parameters(QWEN3_4, config)
    layers, vision = params["text"]["layers"], params["vision"]
    for i in range(2):
        name = f"model.language_model.layers.{i}.self_attn"
        q, out = held[f"{name}.q_proj.weight"], held[f"{name}.o_proj.weight"]
        x, y = np.random.default_rng(0).normal(size=(2, 24)), np.random.default_rng(1).normal(size=(2, 4, 12))
        np.testing.assert_allclose(np.einsum("nd,dkh->nkh", x, layers["q"][i]), (x @ q.T).reshape(2, 4, 12), rtol=1e-6)
        np.testing.assert_allclose(np.einsum("nkh,khd->nd", y, layers["out"][i]), y.reshape(2, 48) @ out.T, rtol=1e-6)
        qkv = held[f"model.visual.blocks.{i}.attn.qkv.weight"]
        np.testing.assert_array_equal(vision["layers"]["qkv"]["weight"][i, :, 1, 1], qkv[16 + 8 : 16 + 16].T)
    kernel = held["model.visual.patch_embed.proj.weight"]
    np.testing.assert_array_equal(vision["patch"]["weight"], kernel.reshape(16, -1).T)


@each
def test_each_device_gets_its_part_and_the_whole_is_the_same(folder):
    config = checkpoint.read_config(folder)
    mesh = partitioning.make_mesh(data=1, fsdp=1, tp=1)
    placed = partitioning.shardings(qwen_vl.axes(config), mesh, qwen_vl.abstract(config))
    whole, sharded = (checkpoint.load_parameters(folder, config, s) for s in (None, placed))
    jax.tree.map(np.testing.assert_array_equal, whole, sharded)
    assert jax.tree.map(lambda x: x.sharding, sharded) == placed


def test_a_part_of_a_parameter_reads_that_part_of_the_tensors():
    config, arrays = checkpoint.read_config(QWEN3_4), checkpoint_files.read_files(QWEN3_4)[0].arrays()
    arrays = {checkpoint_names.canonical(name): array for name, array in arrays.items()}
    whole = jax.tree.map(np.asarray, checkpoint.load_parameters(QWEN3_4, config))
    for place in checkpoint_names.places(config):
        leaf = whole
        for key in place.path:
            leaf = leaf[key]
        layers = [place.ours(arrays[name]) for name in place.names]
        assert all(layer.base is not None for layer in layers)  # views of the mapped file
        for axis, size in enumerate(place.shape):
            part = [slice(None)] * len(place.shape)
            part[axis] = slice(size // 2, size)
            np.testing.assert_array_equal(checkpoint._read(place, layers, tuple(part)), leaf[tuple(part)])


def test_on_eight_devices_each_reads_its_part_and_the_export_is_the_same(on_eight_devices, tmp_path):
    assert on_eight_devices("-c", EIGHT_DEVICES, QWEN2_5_4, tmp_path) == "equal"
    for path in QWEN2_5_4.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_an_export_without_a_source_is_read_back(tmp_path):
    tokenizer = train_sentencepiece(["look at this"] * 3, 300, tmp_path / "tokenizer")
    for family in ("qwen3_vl", "qwen2_5_vl"):
        config = checkpoint.read_config(QWEN3_4 if family == "qwen3_vl" else QWEN2_5_4)
        config = dataclasses.replace(config, vocabulary=tokenizer.size)
        params, out = drawn(config), tmp_path / family
        for dtype in ("float32", "bfloat16"):
            checkpoint.save_parameters(out, params, config, tokenizer=tokenizer, dtype=dtype)
            assert checkpoint.read_config(out) == config
            stored = jax.tree.map(functools.partial(rounded, dtype), params)
            jax.tree.map(np.testing.assert_array_equal, checkpoint.load_parameters(out, config), stored)
        held = tensors(out)
        assert {str(value.dtype) for value in held.values()} == {"bfloat16"}
        released = "model.layers.0.mlp.up_proj.weight" if family == "qwen2_5_vl" else "model.visual.pos_embed.weight"
        assert released in held
        written = json.loads((out / "config.json").read_text())
        assert (written["video_token_id"], written["image_token_id"]) == (
            tokenizer.ids.video_pad,
            tokenizer.ids.image_pad,
        )


def test_a_large_export_is_divided_into_files_with_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "SHARD_BYTES", 20_000)
    tokenizer = train_sentencepiece(["look at this"] * 3, 300, tmp_path / "tokenizer")
    config = dataclasses.replace(checkpoint.read_config(QWEN3_5), vocabulary=tokenizer.size)
    params = drawn(config)
    checkpoint.save_parameters(tmp_path / "out", params, config, tokenizer=tokenizer)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors(tmp_path / "out").values())
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load_parameters(tmp_path / "out", config), params)


def test_tokenizer_and_processor_go_with_an_export(tmp_path):
    source = copy(QWEN3_4, tmp_path / "source")
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.jinja", "merges.txt", "LICENSE"):
        (source / name).write_text(f'{{"of": "{name}"}}')
    (source / "README.md").write_text("about the base")
    config = checkpoint.read_config(source)
    checkpoint.save_parameters(tmp_path / "out", checkpoint.load_parameters(source, config), config, source)
    left = {path.name for path in source.iterdir()} - {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"README.md"}


def test_all_tensors_that_do_not_fit_are_named_in_one_error(tmp_path):
    folder = copy(QWEN2_5_5, tmp_path / "c")

    def change(held):
        del held["visual.blocks.1.attn.qkv.bias"], held["model.norm.weight"]
        held["model.layers.7.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)
        held["visual.merger.ln_q.weight"] = np.zeros((5, 3), np.float32)
        held["visual.blocks.0.norm1.weight"] = np.zeros(16, np.float16)

    rewrite(folder / "model.safetensors", change)
    with pytest.raises(UserError) as caught:
        checkpoint.load_parameters(folder, checkpoint.read_config(folder))
    line = str(caught.value)
    assert "\n" not in line
    assert "missing are model.norm.weight, visual.blocks.1.attn.qkv.bias;" in line
    assert "not of this model are model.layers.7.mlp.up_proj.weight;" in line
    assert "of another shape are visual.merger.ln_q.weight [5, 3], not [16];" in line
    assert "neither bfloat16 nor float32 are visual.blocks.0.norm1.weight F16 " in line


def test_a_tied_head_may_be_stored_but_must_be_the_table(tmp_path):
    folder = copy(QWEN3_4, tmp_path / "c")
    table = tensors(folder)["model.language_model.embed_tokens.weight"]
    rewrite(folder / "model.safetensors", lambda held: held.update({"lm_head.weight": table.copy()}))
    config = checkpoint.read_config(folder)
    checkpoint.save_parameters(tmp_path / "out", checkpoint.load_parameters(folder, config), config, folder)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    rewrite(folder / "model.safetensors", lambda held: held.update({"lm_head.weight": table + 1}))
    with pytest.raises(UserError, match="ties the head"):
        checkpoint.load_parameters(folder, config)


@pytest.mark.parametrize("kept", [4, 200, -1])
def test_a_truncated_file_is_one_line(kept, tmp_path):
    folder = copy(QWEN3_4, tmp_path / "c")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"(cut in its header|1 bytes of it are missing).*model\.safetensors"):
        checkpoint.load_parameters(folder, checkpoint.read_config(folder))


def test_a_file_that_is_no_safetensors_is_one_line(tmp_path):
    folder = copy(QWEN3_4, tmp_path / "c")
    for content in (b"", b"version https://git-lfs", struct.pack("<Q", 4) + b"[[[["):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="safetensors file"):
            checkpoint.load_parameters(folder, checkpoint.read_config(folder))


def test_missing_files_of_a_sharded_checkpoint_are_named(tmp_path):
    folder = copy(QWEN3_5, tmp_path / "c")
    files = sorted(folder.glob("*.safetensors"))
    files[1].unlink()
    with pytest.raises(UserError, match=f"missing: {files[1].name}"):
        checkpoint.load_parameters(folder, checkpoint.read_config(folder))
    files[0].replace(files[1])
    files[0].symlink_to(files[1])
    with pytest.raises(UserError, match=r"not in the files that the index names: .*weight"):
        checkpoint.load_parameters(folder, checkpoint.read_config(folder))


def test_a_folder_without_weights_or_config_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no readable config\.json"):
        checkpoint.read_config(tmp_path)
    shutil.copy(QWEN3_4 / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        checkpoint.load_parameters(tmp_path, checkpoint.read_config(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not a JSON file"):
        checkpoint.read_config(tmp_path)


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        (
            (),
            {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoe"]},
            "unsupported architecture 'qwen3_vl_moe'",
        ),
        ((), {"model_type": "llama"}, "unsupported architecture 'llama'"),
        ((), {"quantization_config": {"bits": 4}}, "quantization_config is"),
        (
            ("text_config",),
            {"attention_bias": True, "hidden_act": "gelu"},
            "hidden_act is 'gelu', attention_bias is True",
        ),
        (("text_config", "rope_parameters"), {"rope_type": "yarn"}, "rope_type is 'yarn'"),
        (("vision_config",), {"out_hidden_size": 32}, "out_hidden_size is 32"),
        (("vision_config",), {"num_position_embeddings": 10}, "num_position_embeddings is 10"),
        (("text_config",), {"head_dim": 13}, "head_width must be even"),
        (("vision_config",), {"depth": None}, r"fields are missing: vision_config\.depth"),
    ],
)
def test_what_is_not_supported_is_refused_before_weights_are_read(section, change, told, tmp_path):
    content = json.loads((QWEN3_5 / "config.json").read_text())
    part = content
    for name in section:
        part = part[name]
    part.update(change)
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        checkpoint.read_config(tmp_path)


def test_an_export_over_its_source_or_from_another_model_is_refused(tmp_path):
    config = checkpoint.read_config(QWEN3_4)
    params = checkpoint.load_parameters(QWEN3_4, config)
    folder = copy(QWEN3_4, tmp_path / "c")
    with pytest.raises(UserError, match="over its source"):
        checkpoint.save_parameters(folder, params, config, folder)
    other = dataclasses.replace(config, rope_theta=5.0)
    with pytest.raises(UserError, match="differs in rope_theta"):
        checkpoint.save_parameters(tmp_path / "out", params, other, folder)
    running = dataclasses.replace(config, dtype="bfloat16", scan_layers=False, logit_chunk=8)
    checkpoint.save_parameters(tmp_path / "out", params, running, folder)


def test_an_export_rounds_to_the_types_of_its_source(tmp_path):
    config = checkpoint.read_config(QWEN3_5)
    params = jax.tree.map(lambda x: x + 1 / 3, checkpoint.load_parameters(QWEN3_5, config))
    checkpoint.save_parameters(tmp_path / "out", params, config, QWEN3_5)
    held = tensors(tmp_path / "out")
    np.testing.assert_array_equal(
        held["model.language_model.norm.weight"], np.asarray(params["text"]["norm"]["scale"]).astype(ml_dtypes.bfloat16)
    )


def test_the_published_sizes_have_as_many_tensors_as_their_checkpoints():
    for name, count in (("qwen3_vl_8b", 750), ("qwen2_5_vl_7b", 729)):
        named = [name for place in checkpoint_names.places(SIZES[name]) for name in place.names]
        assert len(named) == len(set(named)) == count
