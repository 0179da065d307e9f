"""FLoR's norm written with loops over NumPy float64 arrays, and numerical gradients of it."""

import numpy as np


def norm(x, weight, affine, running, *, own_axes, train, momentum=0.1, epsilon=1e-5):
    """`w · own + (1 − w) · batch` of [B, …, C], and the new running (mean, variance).

    Args:
      x: the input.
      weight: w of each image.
      affine: (scale, bias) of own, (scale, bias) of batch.
      running: mean, variance.
      own_axes: the axes, of one image, over which its own norm runs: all but the last for an instance norm, the last
        for a layer norm.
      train: whether the batch is normalised by itself.
    """
    rows = np.concatenate([image.reshape(-1, x.shape[-1]) for image in x])
    new = running
    mean, variance = running
    if train:
        mean, variance = rows.mean(0), rows.var(0)
        unbiased = rows.var(0, ddof=1)
        new = tuple((1 - momentum) * old + momentum * now for old, now in zip(running, (mean, unbiased), strict=True))
    out = np.empty(x.shape)
    for i, image in enumerate(x):
        centred = image - image.mean(axis=own_axes, keepdims=True)
        own = centred / np.sqrt(image.var(axis=own_axes, keepdims=True) + epsilon)
        batch = (image - mean) / np.sqrt(variance + epsilon)
        (own_scale, own_bias), (batch_scale, batch_bias) = affine
        out[i] = weight[i] * (own * own_scale + own_bias) + (1 - weight[i]) * (batch * batch_scale + batch_bias)
    return out, new


def gradient(function, at, step=1e-6):
    """Central differences of a scalar function of one float64 array."""
    found = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        found[index] = (ends[0] - ends[1]) / (2 * step)
    return found
