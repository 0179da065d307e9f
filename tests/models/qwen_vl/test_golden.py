"""Both families against what transformers computed from the same checkpoints (make_golden.py)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.qwen_vl import mrope, vision_windows
from evads_jax.models.qwen_vl.checkpoint import load_parameters, read_config

from . import cases

LOGITS, GRADIENT, LOGPROB = 1e-5, 1e-4, 1e-5  # the promise is 1e-4 and 1e-3; this is what float32 gives


class Golden:
    """A family's checkpoint, inputs and expected values."""

    def __init__(self, family):
        self.config = read_config(cases.GOLDEN / family)
        self.params = load_parameters(cases.GOLDEN / family, self.config)
        self.cases = [cases.draw(name, self.config.traits.timestamps) for name in cases.CASES]
        with np.load(cases.GOLDEN / family / "expected.npz") as file:
            self._expected = dict(file)

    def expected(self, kind):
        return [self._expected[f"{kind}/{name}"] for name in cases.CASES]

    def gradient(self):
        start = "gradient/"
        tensors = {name.removeprefix(start): x for name, x in self._expected.items() if name.startswith(start)}
        return cases.tree_of(tensors, self.config)


@pytest.fixture(scope="module", params=cases.FAMILIES)
def golden(request):
    return Golden(request.param)


def assert_logits(ours, theirs):
    for name, a, b in zip(cases.CASES, ours, theirs, strict=True):
        assert cases.difference(a, b) < LOGITS, name


def test_the_sizes_leave_nothing_out(golden):
    config, vision = golden.config, golden.config.vision
    assert config.kv_heads > 1
    assert config.heads > config.kv_heads
    assert (config.head_width != config.width // config.heads) == config.traits.qk_norm  # 2.5 has no other width
    assert len(vision.deepstack) > 1 or 0 < len(vision.full_attention) < vision.layers
    assert not config.tie_embeddings


def test_the_logits_of_a_ragged_batch_are_those_of_each_input_alone(golden):
    assert_logits(cases.logits(golden.params, golden.config, golden.cases), golden.expected("logits"))


def test_a_scanned_decoder_gives_the_same_logits(golden):
    config = dataclasses.replace(golden.config, scan_layers=not golden.config.scan_layers)
    assert_logits(cases.logits(golden.params, config, golden.cases), golden.expected("logits"))


def test_a_tied_head_is_the_table_of_tokens(golden):
    text = {name: leaf for name, leaf in golden.params["text"].items() if name != "head"}
    config = dataclasses.replace(golden.config, tie_embeddings=True)
    found = cases.logits({**golden.params, "text": text}, config, golden.cases)
    assert_logits(found, golden.expected("logits_tied"))


def test_the_gradient_of_every_parameter_is_that_of_transformers(golden):
    ours = cases.gradient(golden.params, dataclasses.replace(golden.config, remat=True), golden.cases)
    found = cases.gradient_differences(ours, golden.gradient())
    assert len(found) == len(jax.tree.leaves(golden.params)), "every parameter has a gradient"
    for name, errors in found.items():
        assert max(errors) < GRADIENT, (name, errors)


def test_greedy_tokens_are_those_of_transformers_and_score_as_sampled(golden):
    tokens, sampled, scored = cases.greedy(golden.params, golden.config, golden.cases)
    np.testing.assert_array_equal(tokens, golden.expected("greedy"))
    np.testing.assert_allclose(sampled, scored, atol=LOGPROB)


def test_nothing_that_padding_holds_changes_a_logit(golden):
    prompts, _ = cases.continued(golden.cases, golden.config)
    rng = np.random.default_rng(0)
    place = np.arange(prompts.tokens.shape[1])
    real = place < prompts.lengths[:, None]

    def spoiled(x, keep):
        noise = rng.integers(np.iinfo(x.dtype).min, np.iinfo(x.dtype).max, x.shape, x.dtype, endpoint=True)
        return np.where(keep, x, noise)

    patch = np.arange(prompts.video.patches.shape[1]) < prompts.video.grid.prod(axis=1)[:, None]
    video = prompts.video.replace(patches=spoiled(prompts.video.patches, patch[..., None]))
    broken = prompts.replace(
        tokens=spoiled(prompts.tokens, real),
        positions=spoiled(prompts.positions, real[..., None]),
        video_index=spoiled(prompts.video_index, real),
        video=video,
    )
    features = cases.encode(golden.params, golden.config, video)
    shown = patch.reshape(-1, golden.config.vision.merge**2)[:, :1]
    features = jax.tree.map(lambda rows: jnp.where(shown, rows, jnp.nan), features)
    ours = cases.logits(golden.params, golden.config, golden.cases, broken, features)
    assert_logits(ours, golden.expected("logits"))


def positions(case, config):
    found = cases.prompt(case, config, len(case.ids))
    return found.positions, found.next_position


def test_positions_are_those_of_transformers(golden):
    for case, expected in zip(golden.cases, golden.expected("positions"), strict=True):
        found, after = positions(case, golden.config)
        np.testing.assert_array_equal(found, expected)
        assert after == expected.max() + 1


def test_positions_of_version_4_are_those_of_version_4(golden):
    config = dataclasses.replace(golden.config, video_layout="transformers_4")
    with np.load(cases.GOLDEN / "positions_4.57.6.npz") as file:
        for name, case in zip(cases.CASES, golden.cases, strict=True):
            found, after = positions(case, config)
            np.testing.assert_array_equal(found, file[f"{config.family}/{name}"])
            assert after == file[f"{config.family}/{name}/next"]


def test_with_whole_seconds_the_release_and_version_4_agree(golden):
    whole = [tuple((n, size, s and float(int(s))) for n, size, s in case.shown) for case in golden.cases]
    with np.load(cases.GOLDEN / "positions_4.57.6.npz") as file:
        for name, case, shown in zip(cases.CASES, golden.cases, whole, strict=True):
            found, _ = positions(dataclasses.replace(case, shown=shown), golden.config)
            np.testing.assert_array_equal(found, file[f"{golden.config.family}/{name}"])


@pytest.fixture(scope="module")
def qwen2_5():
    return Golden("qwen2_5_vl")


def test_logits_of_version_5_are_those_with_its_own_positions(qwen2_5):
    config = dataclasses.replace(qwen2_5.config, video_layout="transformers_5")
    for case, expected in zip(qwen2_5.cases, qwen2_5.expected("positions_5"), strict=True):
        np.testing.assert_array_equal(positions(case, config)[0], expected)
    found, theirs = cases.logits(qwen2_5.params, config, qwen2_5.cases), qwen2_5.expected("logits_5")
    assert_logits(found, theirs)
    at = list(cases.CASES).index("video")
    assert cases.difference(qwen2_5.expected("logits")[at], theirs[at]) > 100 * LOGITS, "else the layouts are alike"


def test_dropping_any_part_of_a_model_changes_its_logits(golden):
    """Each parameter set to what it would be if it were not there: bias 0, scale 1, matrix 0."""
    expected = cases.logits(golden.params, golden.config, golden.cases)
    leaves, tree = jax.tree_util.tree_flatten_with_path(golden.params)
    for i, (path, leaf) in enumerate(leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        without = jnp.ones_like(leaf) if name.endswith("scale") else jnp.zeros_like(leaf)
        params = tree.unflatten([without if j == i else x for j, (_, x) in enumerate(leaves)])
        found = cases.logits(params, golden.config, golden.cases)
        change = max(map(cases.difference, found, expected))
        assert change > 100 * LOGITS, name


def test_every_window_is_a_run_of_its_own_tokens():
    sizes = Golden("qwen2_5_vl").config.vision
    order, window = vision_windows.arrange(jnp.array([[6, 10], [2, 6], [0, 0]]), 16, sizes)
    assert order[0, :15].tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]
    assert window[0].tolist() == [0] * 4 + [1] * 4 + [2] * 2 + [3] * 2 + [4] * 2 + [5, -1]
    assert window[1].tolist() == [0, 0, 1] + [-1] * 13
    assert window[2].tolist() == [-1] * 16


@pytest.mark.parametrize("name", ["video", "two videos"])
def test_the_text_behind_a_video_begins_where_the_layout_says(qwen2_5, name):
    case = qwen2_5.cases[list(cases.CASES).index(name)]
    firsts = {
        layout: positions(case, dataclasses.replace(qwen2_5.config, video_layout=layout))[0][case.split - 1].tolist()
        for layout in ("release", "transformers_4", "transformers_5")
    }
    assert len({tuple(first) for first in firsts.values()}) == 3, firsts
    assert all(len(set(first)) == 1 for first in firsts.values())


def test_the_seconds_of_a_video_become_whole_steps(qwen2_5):
    of = lambda layout: dataclasses.replace(qwen2_5.config, video_layout=layout)  # noqa: E731
    assert mrope.unit_offsets(4, 0.75, of("release")) == (0, 1, 3, 4)
    assert mrope.unit_offsets(4, 0.75, of("transformers_4")) == (0, 0, 0, 0)
    assert mrope.unit_offsets(4, 0.5, of("transformers_5")) == (0, 1, 2, 3)
