"""Downloaded weights: golden files made with transformers, names that differ, and what loading refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evads_jax.errors import UserError
from evads_jax.models import cope
from evads_jax.models.cope import transformer, visual
from evads_jax.models.cope.text import encode_text
from evads_jax.models.cope.visual import embed_patches, encode_frames
from evads_jax.models.cope.weights import load_text, load_visual
from evads_jax.models.norms import layer_norm

from . import tiny

GOLDEN = Path(__file__).parent / "golden"
XCLIP, BERT = GOLDEN / "xclip", GOLDEN / "bert"
CONFIG = cope.CopeConfig(
    vocabulary=30, frame_size=16, frames=3, text_tokens=6, embedding=8,
    visual_width=16, visual_layers=2, visual_heads=2, visual_mlp_width=24, visual_patch=8,
    mit_width=8, mit_layers=2, mit_heads=2, text_width=16, text_layers=2, text_heads=2, text_mlp_width=24,
)  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "expected.npz"))


@pytest.fixture(scope="module")
def drawn():
    return tiny.params(CONFIG)


@pytest.fixture(scope="module")
def loaded(drawn):
    return load_text(load_visual(drawn, CONFIG, XCLIP), CONFIG, BERT)


def largest_relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@jax.jit
def frame_features(params, frames, count):
    return encode_frames(params["encoders"]["shared"]["visual"], CONFIG, frames, count)[0]


@jax.jit
def image_features(params, frames):
    """CLIP's features of single frames, from our parts: blocks without messages, projected class tokens."""
    own = params["encoders"]["shared"]["visual"]
    everything = jnp.ones((1, CONFIG.positions), bool)
    x = embed_patches(own, CONFIG, frames.reshape(-1, 16, 16, 3))
    x = transformer.run_layers(
        lambda layer, x: transformer.pre_norm_block(
            layer, x, CONFIG.visual_heads, everything, transformer.ACTIVATIONS[CONFIG.visual_activation]
        ),
        own["layers"], x, CONFIG,
    )  # fmt: skip
    return transformer.linear(own["projection"], layer_norm(own["norm_out"], x[:, 0]))


@jax.jit
def text_features(params, tokens, count):
    own = params["encoders"]["shared"]["text"]
    states, _ = encode_text(own, CONFIG, tokens, count)
    return states, jnp.tanh(transformer.linear(own["pooler"], states[:, 0]))


def test_frames_are_encoded_as_by_x_clip(loaded, golden):
    found = frame_features(loaded, golden["frames"], np.array([3, 3]))
    assert largest_relative(found, golden["features_3"]) <= 1e-5


def test_clips_of_fewer_frames_are_encoded_as_by_an_x_clip_of_so_many(loaded, golden):
    found = frame_features(loaded, golden["frames"], np.array([2, 2]))[:, :2]
    assert largest_relative(found, golden["features_2"]) <= 1e-5


def test_single_frames_are_encoded_as_by_clip(loaded, golden):
    assert largest_relative(image_features(loaded, golden["frames"]), golden["image"]) <= 1e-5


def test_tokens_are_encoded_as_by_the_first_layers_of_bert(loaded, golden):
    states, pooled = text_features(loaded, golden["tokens"], golden["token_count"])
    said = np.arange(6) < golden["token_count"][:, None]
    assert largest_relative(states[said], golden["states"][said]) <= 1e-5
    assert largest_relative(pooled, golden["pooled"]) <= 1e-5


def test_every_loaded_parameter_matters_to_the_golden_features(loaded, golden):
    @jax.jit
    def features(params):
        frames = frame_features(params, golden["frames"], np.array([3, 3]))
        return frames, *text_features(params, golden["tokens"], golden["token_count"])

    expected = features(loaded)
    leaves, tree = jax.tree.flatten(loaded)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in
             jax.tree_util.tree_leaves_with_path(loaded)]  # fmt: skip
    for i, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        # A key's bias adds the same to all logits of a query.
        if not path.startswith("encoders") or "nothing" in path or path.endswith("k/bias"):
            continue
        spoiled = features(jax.tree.unflatten(tree, [*leaves[:i], leaf * 1.2 + 0.05, *leaves[i + 1 :]]))
        assert max(map(largest_relative, spoiled, expected)) > 1e-4, path


def clip_folder(folder, prefix, projection=True):
    """A plain CLIP's folder with the golden weights."""
    folder.mkdir()
    sizes = json.loads((XCLIP / "config.json").read_text())["vision_config"] | {"model_type": "clip_vision_model"}
    (folder / "config.json").write_text(json.dumps(sizes))
    tensors = {}
    for name, value in load_file(XCLIP / "model.safetensors").items():
        if "message" in name or name.startswith("mit.") or ("projection" in name and not projection):
            continue
        name = name.removeprefix("vision_model.") if prefix == "" else name
        tensors[name.replace("pre_layernorm", "pre_layrnorm")] = value
    tensors |= {"text_model.embeddings.token_embedding.weight": np.ones((2, 2), np.float32)} if prefix else {}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_a_plain_clip_gives_its_part_and_leaves_the_rest_as_drawn(drawn, golden, tmp_path, prefix):
    params = load_visual(drawn, CONFIG, clip_folder(tmp_path / "clip", prefix))
    assert largest_relative(image_features(params, golden["frames"]), golden["image"]) <= 1e-5
    own, before = (p["encoders"]["shared"]["visual"] for p in (params, drawn))
    for part in ("message", "mit_layers", "mit_position", "nothing"):
        jax.tree.map(np.testing.assert_array_equal, own[part], before[part])
    jax.tree.map(np.testing.assert_array_equal, params["heads"], drawn["heads"])


def test_weights_without_projection_or_pooler_keep_the_drawn_one(drawn, tmp_path):
    params = load_visual(drawn, CONFIG, clip_folder(tmp_path / "clip", "", projection=False))
    for one, other in zip(*(p["encoders"]["shared"]["visual"]["projection"].values() for p in (params, drawn)),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    shutil.copytree(BERT, tmp_path / "bert")
    tensors = load_file(BERT / "model.safetensors")
    prefixed = {f"bert.{name}": x for name, x in tensors.items() if "pooler" not in name}
    save_file({**prefixed, "cls.predictions.bias": np.ones(30, np.float32)}, tmp_path / "bert" / "model.safetensors")
    params = load_text(drawn, CONFIG, tmp_path / "bert")
    own, before = (p["encoders"]["shared"]["text"] for p in (params, drawn))
    np.testing.assert_array_equal(own["pooler"]["weight"], before["pooler"]["weight"])
    np.testing.assert_array_equal(own["embed"], tensors["embeddings.word_embeddings.weight"])


def test_every_domain_of_its_own_starts_from_the_same_weights():
    config = dataclasses.replace(CONFIG, shared=False)
    params = load_visual(tiny.params(config), config, XCLIP)
    first, *others = (params["encoders"][domain]["visual"]["patch"]["weight"] for domain in cope.DOMAINS)
    assert all(np.array_equal(first, other) for other in others)


def told(folder, config):
    """The folder, whose config.json says something else."""
    sizes = json.loads((folder / "config.json").read_text())
    sizes.get("vision_config", sizes).update(config)
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"vision_model.post_layernorm.weight": None}, {}, "no tensor 'post_layernorm.weight'"),
        *(
            ({f"vision_model.encoder.layers.{i}.mlp.fc1.bias": None}, {}, f"no tensor '.*{i}.mlp.fc1.bias'")
            for i in (0, 1)
        ),
        (
            {"visual_projection.bias": np.ones(8, np.float32)},
            {},
            "tensors that this model does not have.*projection.bias",
        ),
        ({}, {"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06, the model 1e-05"),
        ({"visual_projection.weight": np.ones((5, 16), np.float32)}, {}, r"projection/weight are \(16, 5\), not"),
        ({"vision_model.head.weight": np.ones(7, np.float32)}, {}, "1 tensors that this model does not have.*head"),
        ({}, {"num_attention_heads": 4}, "num_attention_heads 4, the model 2.*visual_heads to 4"),
        ({}, {"hidden_act": "gelu"}, "hidden_act 'gelu', the model 'quick_gelu'.*visual_activation to 'gelu'"),
        ({}, {"mit_num_hidden_layers": 1}, "mit_layers to 1"),
    ],
)
def test_wrong_weights_of_frames_are_one_line(drawn, altered, tensors, config, message):
    with pytest.raises(UserError, match=message):
        load_visual(drawn, CONFIG, told(altered(XCLIP, **tensors), config))


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"embeddings.word_embeddings.weight": np.ones((31, 16), np.float32)}, {}, r"embed are \(31, 16\), not"),
        ({"encoder.layer.1.output.dense.weight": None}, {}, "no tensor 'encoder.layer.1.output.dense.weight'"),
        ({"encoder.layer.1.output.dense.bias": None}, {}, "no tensor 'encoder.layer.1.output.dense.bias'"),
        ({}, {"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05, the model 1e-12"),
        ({}, {"model_type": "roberta"}, "a roberta model with gelu is not read"),
        ({}, {"num_hidden_layers": 1}, "the weights have 1 layers.*text_layers to 1"),
        ({}, {"intermediate_size": 50}, "text_mlp_width to 50"),
    ],
)
def test_wrong_weights_of_text_are_one_line(drawn, altered, tensors, config, message):
    with pytest.raises(UserError, match=message):
        load_text(drawn, CONFIG, told(altered(BERT, **tensors), config))


def test_folders_without_weights_are_one_line(drawn, tmp_path):
    with pytest.raises(UserError, match=r"no readable config\.json"):
        load_visual(drawn, CONFIG, tmp_path / "nowhere")
    (tmp_path / "config.json").write_text((BERT / "config.json").read_text())
    with pytest.raises(UserError, match="no model"):
        load_text(drawn, CONFIG, tmp_path)


def test_the_statistics_are_those_of_clips_processor():
    assert visual.MEAN.tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert visual.DEVIATION.tolist() == pytest.approx([0.26862954, 0.26130258, 0.27577711])
