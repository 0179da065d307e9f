"""V_den of many videos at once: one jitted pass over packed frames, O(F · window · D) work and never F × F.

The host normalises in float64 and keeps each unit vector as two float32 (value and remainder), so that the
distance ½‖â − b̂‖² keeps its digits where two frames are almost the same; two equal frames give exactly 0.
Blocks of a fixed number of rows with a halo of `window` rows bound the memory whatever the length of a video.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.density.visual.settings import VisualSettings
from evads_jax.density.visual.weights import MICRO, Clock

BLOCK_ROWS = 2048  # at width 768 a block and its remainder are 12 MiB
CACHE_ROWS = 64  # rows that the host normalises at a time, so that they stay in its cache


@dataclasses.dataclass(frozen=True)
class VisualDensity:
    """V_den of one video.

    Attributes:
        value: the density; None where it could not be measured.
        missing: why there is no value: "no_frames", "one_frame", "no_neighbours" or "nan_features"; else None.
        curve: density of each second, its time average; None for a second without a measured frame.
        bad_frames: indices of the frames whose features are not finite.
    """

    value: float | None
    missing: str | None = None
    curve: tuple[float | None, ...] = ()
    bad_frames: tuple[int, ...] = ()


def visual_densities(
    features: list[np.ndarray], times: list[np.ndarray], durations: list[float], settings: VisualSettings
) -> list[VisualDensity]:
    """V_den of a batch of ragged videos.

    Args:
        features: one [F, D] array a video; all of one width.
        times: one [F] array of seconds a video, non-decreasing. Frames at one time count as one frame together.
        durations: seconds, one a video.
        settings: the form of the formula.

    Returns:
        One result a video, in order. A video with a non-finite feature has no value, and names the frames.
    """
    bad = [_not_finite(x) for x in features]
    usable = [i for i, rows in enumerate(bad) if not rows and len(features[i])]
    results = {
        i: VisualDensity(None, "nan_features" if bad[i] else "no_frames", bad_frames=bad[i])
        for i in range(len(features))
        if i not in usable
    }
    if usable:
        clock = Clock.of([times[i] for i in usable], [durations[i] for i in usable])
        weighted, weight = _weighted_sums([features[i] for i in usable], clock, settings)
        for place, i in enumerate(usable):
            rows = slice(*np.searchsorted(clock.segment, [place, place + 1]))
            results[i] = _summary(clock, rows, weighted[rows], weight[rows], durations[i], settings)
    return [results[i] for i in range(len(features))]


def visual_density(features: np.ndarray, times: np.ndarray, duration: float, settings: VisualSettings) -> VisualDensity:
    """V_den of one video; see `visual_densities`."""
    return visual_densities([features], [times], [duration], settings)[0]


@partial(jax.jit, static_argnames="rows")
def _block(
    unit: Float[Array, "R D"],
    remainder: Float[Array, "R D"],
    segment: Int[Array, " R"],
    weights: Float[Array, "W C"],
    mass: Float[Array, " R"],
    window: Int[Array, ""],
    rows: int,
) -> tuple[Float[Array, " R"], Float[Array, " R"]]:
    """Adds every pair (i, i + offset), i < rows, 1 ≤ offset ≤ window, to both of its frames.

    Returns:
        Σ_j w_ij · m_j · d_ij and Σ_j w_ij · m_j, [R] each.
    """

    def at(x: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, offset, rows)

    def one_offset(offset: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        difference = (unit[:rows] - at(unit, offset)) + (remainder[:rows] - at(remainder, offset))
        # A product with ones, not a sum: XLA on CPU adds along the last axis one number at a time.
        distance = jnp.dot(jnp.square(difference), half, precision=jax.lax.Precision.HIGHEST)
        pair = jnp.where(segment[:rows] == at(segment, offset), weights[offset - 1], 0.0)
        for side, other in ((jnp.int32(0), at(mass, offset)), (offset, mass[:rows])):
            added = (pair * other * distance, pair * other)
            sums = tuple(  # type: ignore[assignment]
                jax.lax.dynamic_update_slice_in_dim(s, at(s, side) + a, side, 0)
                for s, a in zip(sums, added, strict=True)
            )
        return sums

    zero = jnp.zeros(unit.shape[0], jnp.float32)
    half = jnp.full(unit.shape[1], 0.5, jnp.float32)
    return jax.lax.fori_loop(1, window + 1, one_offset, (zero, zero))


def _weighted_sums(features: list[np.ndarray], clock: Clock, settings: VisualSettings) -> tuple[np.ndarray, np.ndarray]:
    """Runs the blocks over the packed frames and adds up their halos, in float64."""
    window = clock.window(settings)
    rows = min(_bucket(len(clock), 64), BLOCK_ROWS)
    halo = _bucket(window, 4)
    weighted, weight = np.zeros(len(clock) + rows + halo), np.zeros(len(clock) + rows + halo)
    packed = _Packed(features)
    # Of frames at one time only the last has a span, so the integral form counts each span whole.
    masses = np.ones(len(clock)) if settings.weighting == "integral" else clock.mass
    for first in range(0, len(clock), rows):
        unit, remainder = packed.unit(first, rows + halo)
        count = min(rows + halo, len(clock) - first)
        segment, mass = np.full(rows + halo, -1, np.int32), np.zeros(rows + halo, np.float32)
        segment[:count], mass[:count] = clock.segment[first : first + count], masses[first : first + count]
        pairs = np.zeros((halo, rows), np.float32)
        for offset in range(1, window + 1):
            pairs[offset - 1] = clock.pair(settings, offset, first, rows)
        sums = _block(unit, remainder, segment, pairs, mass, np.int32(window), rows=rows)
        weighted[first : first + rows + halo] += np.asarray(sums[0], np.float64)
        weight[first : first + rows + halo] += np.asarray(sums[1], np.float64)
    # A span's weight with itself has distance 0: it joins the denominator only.
    return weighted[: len(clock)], weight[: len(clock)] + clock.own(settings)


class _Packed:
    """Rows of several feature arrays under one index, normalised a block at a time."""

    def __init__(self, features: list[np.ndarray]):
        self._features = features
        self._starts = np.cumsum([0, *map(len, features)])

    def unit(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """[count, D] unit vectors and what float32 cut off them; zeros past the end and for zero features."""
        width = self._features[0].shape[1]
        high, low = np.zeros((count, width), np.float32), np.zeros((count, width), np.float32)
        for start, rows in zip(self._starts, self._features, strict=False):
            begin, end = max(first, start), min(first + count, start + len(rows))
            for part in range(begin, end, CACHE_ROWS):
                stop = min(part + CACHE_ROWS, end)
                exact = rows[part - start : stop - start].astype(np.float64)
                norm = np.sqrt(np.einsum("fd,fd->f", exact, exact))[:, None]
                exact *= 1 / np.where(norm > 0, norm, 1.0)
                high[part - first : stop - first] = exact
                exact -= high[part - first : stop - first]
                low[part - first : stop - first] = exact
        return high, low


def _summary(
    clock: Clock, rows: slice, weighted: np.ndarray, weight: np.ndarray, duration: float, settings: VisualSettings
) -> VisualDensity:
    seen = weight > 0
    if clock.rank[rows][-1] == 0:
        return VisualDensity(None, "one_frame")
    if not seen.any():
        return VisualDensity(None, "no_neighbours")
    frame = np.divide(weighted, weight, out=np.full(len(weight), np.nan), where=seen)
    mass = clock.mass[rows]
    if settings.weighting == "integral":
        value = weighted.sum() / weight.sum()
    else:
        total = duration if settings.per == "seconds" else mass[seen].sum()
        value = (mass[seen] * frame[seen]).sum() / total
    curve = _per_second(clock.start[rows], clock.end[rows], frame, duration)
    return VisualDensity(
        float(settings.alpha * value), curve=tuple(None if np.isnan(x) else float(settings.alpha * x) for x in curve)
    )


def _per_second(start: np.ndarray, end: np.ndarray, frame: np.ndarray, duration: float) -> np.ndarray:
    """[ceil(duration)] the average over each second of the density of the frame on screen."""
    seconds = np.arange(max(int(np.ceil(duration)), 1) + 1)
    span, known = (end - start) / MICRO, ~np.isnan(frame)
    edges = np.append(start, end[-1]) / MICRO
    # Integrals from 0, read off at whole seconds: O(F + seconds).
    total, shown = (
        np.diff(np.interp(seconds, edges, np.append(0.0, np.cumsum(np.where(known, span * value, 0.0)))))
        for value in (frame, np.ones(len(frame)))
    )
    return np.divide(total, shown, out=np.full(len(total), np.nan), where=shown > 1e-6)


def _not_finite(features: np.ndarray) -> tuple[int, ...]:
    """Indices of the rows with a value that is not finite; looks at a block at a time, as all work on features does."""
    blocks = (features[first : first + BLOCK_ROWS] for first in range(0, len(features), BLOCK_ROWS))
    bad = [~np.isfinite(block).all(axis=1) for block in blocks]
    return tuple(np.flatnonzero(np.concatenate(bad)).tolist()) if bad else ()


def _bucket(count: int, least: int) -> int:
    """The next power of two: few shapes, so few compilations."""
    return max(least, 1 << max(count - 1, 0).bit_length())
