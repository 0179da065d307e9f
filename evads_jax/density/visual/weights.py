"""The weight of a pair of frames, from their times alone.

Everything here is NumPy in float64 or whole microseconds and costs O(F · window), without the feature axis: in
float32 the times of a video of hours would be off by milliseconds, and frames at the rim of a neighbourhood would
fall in or out by rounding.
"""

import dataclasses
import math

import numpy as np

from evads_jax.density.visual.settings import VisualSettings

MICRO = 1_000_000  # times are kept in whole microseconds, finer than any container's clock
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclasses.dataclass(frozen=True)
class Clock:
    """When each frame of a packed batch of videos is shown.

    Attributes:
        segment: [F] which video a frame belongs to, non-decreasing.
        start: [F] presentation time, microseconds, non-decreasing within a video.
        end: [F] when the next frame of the video replaces it; for the last, the end of the video.
        rank: [F] place among the distinct times of its video.
        mass: [F] 1 / number of frames at the same time of the same video: together they count as one frame.
    """

    segment: np.ndarray
    start: np.ndarray
    end: np.ndarray
    rank: np.ndarray
    mass: np.ndarray

    @classmethod
    def of(cls, times: list[np.ndarray], durations: list[float]) -> "Clock":
        """Packs the frame times of several videos.

        Args:
            times: seconds, one array a video, each non-decreasing.
            durations: seconds; a last frame shown after the stated end lasts no time.

        Raises:
            ValueError: times that decrease or are not finite.
        """
        segments, starts, ends, ranks, masses = [], [], [], [], []
        for index, (seconds, duration) in enumerate(zip(times, durations, strict=True)):
            if not np.isfinite(seconds).all() or (np.diff(seconds) < 0).any():
                raise ValueError("frame times must be finite and must not decrease")
            start = np.round(np.asarray(seconds, np.float64) * MICRO).astype(np.int64)
            end = np.append(start[1:], max(round(duration * MICRO), start[-1] if len(start) else 0))[: len(start)]
            _, rank, count = np.unique(start, return_inverse=True, return_counts=True)
            segments.append(np.full(len(start), index, np.int32))
            starts.append(start)
            ends.append(end)
            ranks.append(rank)
            masses.append(1.0 / count[rank])
        return cls(*(np.concatenate(parts) for parts in (segments, starts, ends, ranks, masses)))

    def __len__(self) -> int:
        return len(self.start)

    def window(self, settings: VisualSettings) -> int:
        """The largest offset between two frames that have a weight, over all videos of the batch."""
        if not len(self):
            return 0
        step = np.int64(self.segment) * (4 * int(np.abs(self.end).max() + self._reach(settings)) + 4)
        if settings.weighting == "integral":
            low, high = self.end + step, self.start + step
        elif settings.unit == "seconds":
            low, high = self.start + step, self.start + step
        else:
            step = np.int64(self.segment) * (4 * int(self.rank.max() + self._reach(settings)) + 4)
            low, high = self.rank + step, self.rank + step
        last = np.searchsorted(high, low + self._reach(settings), side="right") - 1
        return max(int((last - np.arange(len(self))).max()), 0)

    def pair(self, settings: VisualSettings, offset: int, first: int, count: int) -> np.ndarray:
        """Weights of the pairs (i, i + offset) for `count` frames from `first` on.

        Pairs that straddle two videos or the batch's end get 0. In the sampled form a pair without lag gets 0 too:
        it would compare a frame with itself.
        """
        out = np.zeros(count)
        here = np.arange(first, max(min(first + count, len(self) - offset), first))
        there = here + offset
        if settings.weighting == "integral":
            values = _span_weight(settings, *(self._seconds(a, i) for i in (here, there) for a in ("start", "end")))
        else:
            place = self.start if settings.unit == "seconds" else self.rank
            lag = place[there] - place[here]
            inside = (lag > 0) & (lag <= self._reach(settings))
            scale = MICRO if settings.unit == "seconds" else 1
            values = np.where(inside, _shape(settings, lag / scale), 0.0)
        out[: len(here)] = np.where(self.segment[here] == self.segment[there], values, 0.0)
        return out

    def own(self, settings: VisualSettings) -> np.ndarray:
        """[F] the weight of a frame's span with itself; 0 in the sampled form."""
        if settings.weighting != "integral":
            return np.zeros(len(self))
        length = (self.end - self.start) / MICRO
        return 2 * _twice_integrated(settings, length)

    def _reach(self, settings: VisualSettings) -> int:
        return round(settings.radius * MICRO) if settings.unit == "seconds" else int(settings.radius)

    def _seconds(self, attribute: str, index: np.ndarray) -> np.ndarray:
        return getattr(self, attribute)[index] / MICRO


def _shape(settings: VisualSettings, lag: np.ndarray) -> np.ndarray:
    """w(lag) for lags within the radius."""
    if settings.weights == "uniform":
        return np.ones_like(lag, np.float64)
    if settings.weights == "triangular":
        return 1 - lag / (settings.radius + (settings.unit == "frames"))
    return np.exp(-0.5 * (2 * lag / settings.radius) ** 2)


def _span_weight(
    settings: VisualSettings, a_start: np.ndarray, a_end: np.ndarray, b_start: np.ndarray, b_end: np.ndarray
) -> np.ndarray:
    """∫ over the span a, ∫ over the span b, of w(|s − t|): exact, from the second antiderivative of w."""
    second = [
        _twice_integrated(settings, x) for x in (b_end - a_start, b_start - a_end, b_end - a_end, b_start - a_start)
    ]
    return np.maximum(second[0] + second[1] - second[2] - second[3], 0.0)


def _twice_integrated(settings: VisualSettings, lag: np.ndarray) -> np.ndarray:
    """K with K'' = w, K(0) = K'(0) = 0: w is cut at the radius, so K goes on as a straight line."""
    radius, u = settings.radius, np.abs(lag)
    inside = np.minimum(u, radius)
    if settings.weights == "uniform":
        slope, value = radius, inside**2 / 2
    elif settings.weights == "triangular":
        slope, value = radius / 2, inside**2 / 2 - inside**3 / (6 * radius)
    else:
        deviation = radius / 2
        area = deviation * math.sqrt(math.pi / 2)
        slope = area * math.erf(radius / (deviation * math.sqrt(2)))
        first = area * _erf(inside / (deviation * math.sqrt(2)))
        value = inside * first + deviation**2 * np.expm1(-0.5 * (inside / deviation) ** 2)
    return value + slope * (u - inside)
