"""V_den written straight from its formula: float64, every pair of frames, a dozen lines."""

import numpy as np

from evads_jax.density.visual.settings import VisualSettings


def reference_density(features: np.ndarray, times: np.ndarray, duration: float, settings: VisualSettings) -> float:
    """V_den of one video in the sampled form, `α · (1/T) · Σ_i Σ_j w_ij · ½‖â_i − â_j‖² / Σ_j w_ij`.

    Args:
        features: [F, D], one row a frame, all distinct in time.
        times: [F] presentation times in seconds.
        duration: seconds; T where `settings.per` is "seconds".
        settings: the form of the weights.

    Returns:
        The density; nan where no frame has a neighbour.
    """
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    distance = 0.5 * np.square(unit[:, None] - unit[None]).sum(-1)
    place = times if settings.unit == "seconds" else np.arange(len(times))
    lag = np.abs(place[:, None] - place[None])
    reach = settings.radius + (settings.unit == "frames")
    weight = {
        "uniform": np.ones_like(lag),
        "triangular": 1 - lag / reach,
        "gaussian": np.exp(-0.5 * (2 * lag / settings.radius) ** 2),
    }[settings.weights] * ((lag > 0) & (lag <= settings.radius))
    seen = weight.sum(1) > 0
    dissimilarity = (weight * distance).sum(1)[seen] / weight.sum(1)[seen]
    total = duration if settings.per == "seconds" else seen.sum()
    return float(settings.alpha * dissimilarity.sum() / total) if seen.any() else float("nan")
