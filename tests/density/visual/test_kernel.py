"""V_den: the jitted form, the float64 reference, and what must stay the same."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.density.visual import kernel
from evads_jax.density.visual.kernel import visual_densities, visual_density
from evads_jax.density.visual.reference import reference_density
from evads_jax.density.visual.settings import VisualSettings
from evads_jax.errors import UserError

SAMPLED = [
    VisualSettings(weights=weights, unit=unit, radius=radius, per=per)
    for weights in ("uniform", "triangular", "gaussian")
    for unit, radius in (("seconds", 2.0), ("frames", 3))
    for per in ("frames", "seconds")
]
INTEGRAL = [VisualSettings(weights=w, weighting="integral") for w in ("uniform", "triangular", "gaussian")]


def video(seed: int, frames: int, width: int = 12, step: float = 1.0) -> tuple[np.ndarray, np.ndarray, float]:
    """A random walk of features at irregular times, in float32."""
    draw = np.random.default_rng(seed)
    features = np.cumsum(draw.normal(size=(frames, width)) * step, axis=0) + draw.normal(size=width)
    times = np.round(np.cumsum(draw.uniform(0.05, 0.9, frames)), 3)
    return features.astype(np.float32), times, float(times[-1] + 0.5)


def named(settings: VisualSettings) -> str:
    return settings.rule


@pytest.mark.parametrize("settings", SAMPLED, ids=named)
@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-5], ids=["lively", "calm", "nearly_still"])
def test_the_jitted_form_is_the_reference_to_a_millionth(settings, step):
    for frames in (2, 7, 33):
        features, times, duration = video(frames, frames, step=step)
        expected = reference_density(features, times, duration, settings)
        found = visual_density(features, times, duration, settings)
        if np.isnan(expected):
            assert found.missing == "no_neighbours"
        else:
            assert found.value == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.sampled_from(SAMPLED + INTEGRAL), st.integers(0, 99))
def test_a_batch_of_ragged_videos_gives_what_each_gives_alone(lengths, settings, seed):
    videos = [video(seed + i, n) for i, n in enumerate(lengths)]
    batch = visual_densities(*map(list, zip(*videos, strict=True)), settings)
    for together, one in zip(batch, videos, strict=True):
        alone = visual_density(*one, settings)
        assert together.missing == alone.missing
        assert together.value is None or together.value == pytest.approx(alone.value, rel=1e-6)


def test_blocks_and_their_halos_lose_no_pair(monkeypatch):
    whole = [visual_density(*video(3, 300), s).value for s in SAMPLED + INTEGRAL]
    monkeypatch.setattr(kernel, "BLOCK_ROWS", 16)
    assert [visual_density(*video(3, 300), s).value for s in SAMPLED + INTEGRAL] == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("settings", SAMPLED + INTEGRAL, ids=named)
def test_a_constant_video_has_density_exactly_zero(settings):
    features = np.tile(np.random.default_rng(0).normal(size=(1, 33)).astype(np.float32), (40, 1))
    result = visual_density(features, np.arange(40) / 2, 20.0, settings)
    assert result.value == 0.0
    assert set(result.curve) == {0.0}


@given(st.integers(0, 99), st.integers(2, 20), st.data())
def test_a_frame_repeated_at_its_own_time_changes_nothing(seed, frames, data):
    features, times, duration = video(seed, frames)
    settings = data.draw(st.sampled_from(SAMPLED + INTEGRAL))
    again = data.draw(st.integers(0, frames - 1))
    times_again = data.draw(st.integers(1, 3))
    index = np.sort(np.append(np.arange(frames), [again] * times_again))
    once = visual_density(features, times, duration, settings)
    twice = visual_density(features[index], times[index], duration, settings)
    assert once.missing == twice.missing
    assert once.value is None or twice.value == pytest.approx(once.value, rel=2e-6)


@given(st.integers(0, 99), st.integers(2, 30), st.sampled_from(SAMPLED))
def test_frames_and_times_reversed_give_the_same(seed, frames, settings):
    features, times, duration = video(seed, frames)
    forward = visual_density(features, times, duration, settings)
    backward = visual_density(features[::-1], times[-1] - times[::-1], duration, settings)
    assert forward.missing == backward.missing
    assert forward.value is None or backward.value == pytest.approx(forward.value, rel=2e-6)


@pytest.mark.parametrize("settings", SAMPLED + INTEGRAL, ids=named)
def test_a_cut_raises_the_density_of_a_constant_video_and_more_cuts_raise_it_more(settings):
    scenes = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
    values = []
    for cuts in range(6):
        shown = scenes[np.arange(60) * (cuts + 1) // 60]
        values.append(visual_density(shown, np.arange(60) / 2, 30.0, settings).value)
    assert values[0] == 0
    assert all(b > a for a, b in itertools.pairwise(values))


@given(st.integers(0, 99), st.integers(2, 25), st.integers(2, 4), st.sampled_from(INTEGRAL))
def test_the_integral_form_does_not_see_how_often_a_lasting_picture_was_sampled(seed, frames, repeats, settings):
    features, _, _ = video(seed, frames)
    times, duration = np.arange(frames) / 2, frames / 2
    finer = visual_density(
        np.repeat(features, repeats, axis=0), np.arange(frames * repeats) / (2 * repeats), duration, settings
    )
    assert finer.value == pytest.approx(visual_density(features, times, duration, settings).value, rel=2e-6)


@pytest.mark.parametrize("settings", INTEGRAL, ids=named)
def test_the_integral_form_is_the_limit_of_many_instants(settings):
    features, times, duration = video(5, 12)
    fine = 0.01
    instants = np.arange(times[0] + fine / 2, duration, fine)
    on_screen = features[np.searchsorted(times, instants, side="right") - 1].astype(np.float64)
    unit = on_screen / np.linalg.norm(on_screen, axis=1, keepdims=True)
    lag = np.abs(instants[:, None] - instants[None])
    shape = {"uniform": lag * 0 + 1, "triangular": 1 - lag / 2, "gaussian": np.exp(-0.5 * lag**2)}[settings.weights]
    weight = shape * (lag <= 2)
    expected = 100 * (weight * (1 - unit @ unit.T)).sum() / weight.sum()
    assert visual_density(features, times, duration, settings).value == pytest.approx(expected, rel=5e-3)


def test_what_cannot_be_measured_is_missing_and_says_why(monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK_ROWS", 2)
    features, times, duration = video(0, 6)
    settings = VisualSettings()
    assert visual_density(features[:0], times[:0], 0.0, settings).missing == "no_frames"
    assert visual_density(features[:1], times[:1], 1.0, settings).missing == "one_frame"
    assert visual_density(features, np.arange(6) * 100.0, 600.0, settings).missing == "no_neighbours"
    spoiled = features.copy()
    spoiled[[1, 4]] = np.nan
    result = visual_density(spoiled, times, duration, settings)
    assert (result.value, result.missing, result.bad_frames) == (None, "nan_features", (1, 4))


def test_the_curve_is_high_where_the_cut_is():
    features = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    curve = visual_density(features, np.arange(40) / 2, 20.0, VisualSettings(radius=1.0)).curve
    assert len(curve) == 20
    assert max(curve) == max(curve[9:11])
    assert curve[:8] == (0.0,) * 8


def test_settings_outside_their_choices_are_one_line():
    for wrong in (
        {"weights": "cosine"},
        {"radius": 0.0},
        {"radius": np.inf},
        {"weighting": "integral", "unit": "frames", "radius": 1},
    ):
        with pytest.raises(UserError):
            VisualSettings(**wrong)


def test_few_lengths_share_few_compilations():
    kernel._block.clear_cache()
    for frames in (2, 5, 20, 40, 63, 64):
        visual_density(*video(frames, frames), VisualSettings(radius=0.9))
    assert kernel._block._cache_size() <= 3


TEN_HOURS = """
from pathlib import Path
import numpy as np
from evads_jax.density.visual.kernel import visual_density
from evads_jax.density.visual.settings import VisualSettings
frames = 10 * 3600 * 2
features = np.random.default_rng(0).standard_normal((frames, 768), dtype=np.float32)
result = visual_density(features, np.arange(frames) / 2, frames / 2, VisualSettings())
# Not ru_maxrss: Linux hands that on through exec, so it is at least the peak of the process that started this one.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(result.value, int(status["VmHWM"].split()[0]) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read as Linux tells it")
@pytest.mark.parametrize("tunables", ["", "glibc.malloc.hugetlb=1"], ids=["plain_pages", "huge_pages"])
def test_ten_hours_at_two_frames_a_second_fit_in_one_gibibyte(tunables):
    # Without the tests' own flags: what is not optimised takes more memory.
    as_users_do = {**os.environ, "XLA_FLAGS": "", "GLIBC_TUNABLES": tunables}
    done = subprocess.run(
        [sys.executable, "-c", TEN_HOURS], capture_output=True, text=True, check=True, timeout=120, env=as_users_do
    )
    value, mebibytes = map(float, done.stdout.split())
    assert 95 < value < 105
    assert mebibytes < 1024
