"""Nearest prototypes against a plain loop in NumPy float64."""

import jax
import numpy as np
import pytest

from evads_jax.benchmark.fewshot import Transduction, accuracy, prototypes, sample
from evads_jax.errors import UserError

SCORES = jax.jit(prototypes.scores, static_argnums=2)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def loop_scores(features, episode, shots, transduction=None):
    """−‖q − p‖² [n, q, n] of one episode, term by term."""
    chosen = unit(features.astype(np.float64)[episode])
    support, queries = chosen[:, :shots], chosen[:, shots:]
    centred_on = (support if transduction is None else queries).reshape(-1, features.shape[1]).mean(0)
    support, queries = unit(support - centred_on), unit(queries - centred_on)
    n, q = queries.shape[:2]
    points = [support.mean(1)[c] for c in range(n)]

    def distances():
        return np.array([[[-np.sum((queries[c, i] - p) ** 2) for p in points] for i in range(q)] for c in range(n)])

    scores = distances()
    for _ in range(transduction.rounds if transduction else 0):
        chances = np.exp(transduction.temperature * (scores - scores.max(-1, keepdims=True)))
        chances /= chances.sum(-1, keepdims=True)
        for c in range(n):
            points[c] = np.concatenate([support[c], queries[chances[..., c] > transduction.threshold]]).mean(0)
        scores = distances()
    return scores


def loop(features, episodes, transduction=None):
    found = []
    for episode in episodes.indices:
        scores = loop_scores(features, episode, episodes.shots, transduction)
        found.append(np.mean([scores[c, i].argmax() == c for c in range(len(scores)) for i in range(scores.shape[1])]))
    return np.array(found)


@pytest.fixture(scope="module")
def data():
    """Positive features of 8 classes that overlap, as a ReLU gives them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 30)
    centres = rng.uniform(0, 1, (8, 24))
    return np.maximum(centres[labels] + rng.normal(0, 0.5, (240, 24)), 0).astype(np.float32), labels


def episodes_of(labels, shots, count=40):
    return sample(labels, [str(i) for i in range(8)], shots=shots, queries=6, count=count, seed=1)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("transduction", [None, Transduction(1), Transduction(6, temperature=10.0)])
def test_one_call_equals_a_plain_loop(data, shots, transduction):
    features, labels = data
    episodes = episodes_of(labels, shots)
    found = accuracy(features, episodes, transduction)
    np.testing.assert_allclose(found, loop(features, episodes, transduction), atol=1e-6)
    assert 0.4 < found.mean() < 0.95  # neither trivial nor chance, which is .2


@pytest.mark.parametrize("transduction", [None, Transduction(2)])
def test_scores_are_the_squared_distances(data, transduction):
    features, labels = data
    episode = episodes_of(labels, 5).indices[0]
    chosen = unit(features[episode])
    found = SCORES(chosen[:, :5], chosen[:, 5:], transduction)
    np.testing.assert_allclose(found, loop_scores(features, episode, 5, transduction), atol=1e-5)


@pytest.mark.parametrize("transduction", [None, Transduction(1)])
def test_an_accelerator_takes_no_product_in_short_floats(data, transduction):
    """Features have a large common part: of 1 − 2 u·m + m·m few digits would be left."""
    chosen = data[0][:12].reshape(2, 6, -1)
    text = SCORES.lower(chosen[:, :2], chosen[:, 2:], transduction).as_text()
    assert text.count("dot_general") == text.count("precision = [HIGHEST, HIGHEST]") > 0


@pytest.mark.parametrize("chunk", [1, 7, 40, 64])
def test_chunks_never_matter(data, chunk):
    features, labels = data
    episodes = episodes_of(labels, 1)
    np.testing.assert_array_equal(accuracy(features, episodes, chunk=chunk), accuracy(features, episodes))


def test_thousands_of_episodes_are_one_compilation(data):
    features, labels = data
    episodes = episodes_of(labels, 1, count=3000)
    before = prototypes._accuracies._cache_size()
    found = accuracy(features, episodes)
    assert prototypes._accuracies._cache_size() == before + 1
    assert found.shape == (3000,)
    np.testing.assert_array_equal(found[:40], accuracy(features, episodes_of(labels, 1)))


def test_the_scale_of_a_feature_never_matters(data):
    features, labels = data
    episodes = episodes_of(labels, 5)
    stretched = features * np.random.default_rng(2).choice([0.5, 2.0, 8.0], (len(features), 1)).astype(np.float32)
    np.testing.assert_array_equal(accuracy(features, episodes), accuracy(stretched, episodes))


@pytest.mark.parametrize("transduction", [None, Transduction(1)])
def test_features_of_zero_are_no_nan(transduction):
    support, queries = np.zeros((2, 1, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    assert np.isfinite(SCORES(support, queries, transduction)).all()


def test_transduction_in_no_round_is_refused():
    with pytest.raises(UserError, match="0 rounds"):
        Transduction(0)
