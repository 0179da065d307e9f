import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evads_jax.rl.loss import COMPLETION_RATIO, LOSSES, denominator, policy_loss

B, G, S, MAX_TOKENS = 4, 3, 7, 11
LOW, HIGH, BETA = 0.2, 0.28, 0.3

# Every name with what can be set about it, beside the plain losses.
CASES = {
    **{name: (name, {}) for name in LOSSES if name != "gspo"},
    "gspo": ("gspo", {"clip_low": 0.05, "clip_high": 0.08}),
    "cispo with TRL's cap": ("cispo", {"cispo_cap": "trl", "clip_high": 1.1}),
    "grpo with dual clip": ("grpo", {"dual_clip": 1.5}),
    "gspo with dual clip": ("gspo", {"dual_clip": 1.1, "clip_high": 0.08}),
    "rloo with an entropy bonus": ("rloo", {"entropy_weight": 0.7}),
    "dapo with everything": ("dapo", {"dual_clip": 1.4, "entropy_weight": 0.7, "kl_name": "k2", "importance": True}),
    "cispo with importance weights": ("cispo", {"importance": True}),
    "grpo without a KL term": ("grpo", {"kl_name": "none"}),
    "rloo with the KL term in the reward": ("rloo", {"kl_name": "k1_in_reward"}),
}
cases = pytest.mark.parametrize("case", CASES)


@functools.cache
def batch():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, S + 1, (B, G))
    lengths[1, 2] = 0
    mask = np.arange(S) < lengths[..., None]
    new, old, reference = rng.normal(-1.5, 0.4, (3, B, G, S)).astype(np.float32)
    advantages = rng.normal(size=(B, G)).astype(np.float32)
    entropy, importance = rng.random((2, B, G, S)).astype(np.float32)
    return {"new": new, "old": old, "reference": reference, "advantages": advantages, "mask": mask,
            "entropy": entropy, "importance": importance}  # fmt: skip


def sums(name, data, importance=False, **options):
    options = {"max_tokens": MAX_TOKENS, "clip_low": LOW, "clip_high": HIGH, "kl_weight": BETA, **options}
    arrays = {k: jnp.asarray(v) for k, v in data.items()}
    return policy_loss(
        name,
        arrays["new"],
        arrays["old"],
        arrays["advantages"],
        arrays["mask"],
        reference_logprob=arrays["reference"],
        entropy=arrays["entropy"],
        importance=arrays["importance"] if importance else None,
        **options,
    )


def reference(name, data, held=None, *, importance=False, clip_low=LOW, clip_high=HIGH, dual_clip=None,
              cispo_cap="verl", kl_name="k3", entropy_weight=0.0):  # fmt: skip
    """Every loss as its paper has it, completion by completion in float64.

    `held` are the log-probabilities that stand behind a stop-gradient. Returns the loss and the shares of clipped
    tokens (low, high, dual).
    """
    data = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in data.items()}
    held = data["new"] if held is None else held
    completions, tokens = [], []  # per completion: its sum and its length; and what each token adds up to
    clipped = np.zeros(3)
    for b in range(B):
        for g in range(G):
            n = int(data["mask"][b, g].sum())
            if not n:
                continue
            new, old, ref, entropy = (data[k][b, g, :n] for k in ("new", "old", "reference", "entropy"))
            a = data["advantages"][b, g]
            weight = data["importance"][b, g, :n] if importance else np.ones(n)
            log_ratio = {"gspo": np.full(n, (new - old).mean()), "rloo": np.full(n, (new - old).sum())}
            ratio = np.exp(log_ratio.get(name, new - old))
            if name == "cispo":
                fixed = np.exp(held[b, g, :n] - old)
                least = 1 - clip_low if cispo_cap == "verl" else 0
                most = 1 + clip_high if cispo_cap == "verl" else clip_high
                surrogate = -np.clip(fixed, least, most) * a * new
                clipped += [(fixed < least).sum(), (fixed > most).sum(), 0]
            else:
                surrogate = -np.minimum(ratio * a, np.clip(ratio, 1 - clip_low, 1 + clip_high) * a)
                if dual_clip is not None and a < 0:
                    clipped[2] += (surrogate > -dual_clip * a).sum()
                    surrogate = np.minimum(surrogate, -dual_clip * a)
                clipped[:2] += [(ratio < 1 - clip_low).sum() * (a < 0), (ratio > 1 + clip_high).sum() * (a > 0)]
            if name == "rloo":  # the completion has one loss, not one per token
                surrogate = surrogate / n
            log_r = ref - new
            divergence = {"k3": np.exp(log_r) - 1 - log_r, "k2": log_r**2 / 2}.get(kl_name, np.zeros(n))
            loss = weight * surrogate + BETA * divergence - entropy_weight * entropy
            completions.append((loss.sum(), n))
            tokens.extend(loss)
    total = {
        "grpo": lambda: np.mean([loss / n for loss, n in completions]),
        "gspo": lambda: np.mean([loss / n for loss, n in completions]),
        "bnpo": lambda: np.mean(tokens),
        "dapo": lambda: np.mean(tokens),
        "cispo": lambda: np.mean(tokens),
        "dr_grpo": lambda: np.sum(tokens) / (len(completions) * MAX_TOKENS),
        "rloo": lambda: np.mean([loss for loss, _ in completions]),
    }[name]()
    return total, clipped / len(tokens)


def slopes(name, data, **options):
    """The reference's gradient by central differences, what is stopped held fixed."""
    held = data["new"].astype(np.float64)
    gradient = np.zeros(held.shape)
    for place in zip(*np.nonzero(data["mask"]), strict=True):
        for sign in (1, -1):
            moved = held.copy()
            moved[place] += sign * 1e-6
            gradient[place] += sign * reference(name, {**data, "new": moved}, held, **options)[0] / 2e-6
    return gradient


@cases
def test_the_loss_and_its_gradient_equal_the_formula(case):
    (name, options), data = CASES[case], batch()
    value, clipped = reference(name, data, **options)
    got = sums(name, data, **options)
    np.testing.assert_allclose(got.value(), value, rtol=1e-5)
    slope = jax.grad(lambda new: sums(name, {**data, "new": new}, **options).loss)(data["new"]) / got.denominator
    np.testing.assert_allclose(slope, slopes(name, data, **options), rtol=1e-4, atol=1e-7)
    metrics = got.metrics()
    shares = [metrics[f"clip_{side}"] for side in ("low", "high", "dual") if f"clip_{side}" in metrics]
    np.testing.assert_allclose(shares, clipped[: len(shares)], rtol=1e-6)
    assert ("clip_dual" in metrics) == ("dual_clip" in options)
    assert clipped[1] > 0
    assert clipped[0] > 0 or options.get("cispo_cap") == "trl"
    assert clipped[2] > 0 or "dual_clip" not in options


@cases
def test_the_denominator_is_known_before_the_loss(case):
    (name, options), data = CASES[case], batch()
    assert denominator(name, data["mask"], MAX_TOKENS) == sums(name, data, **options).denominator


def test_the_metrics_are_means_over_the_real_tokens():
    data = batch()
    mask, got = data["mask"], sums("dapo", data).metrics()
    log_ratio = (data["new"] - data["old"])[mask].astype(np.float64)
    gap = (data["reference"] - data["new"])[mask].astype(np.float64)
    np.testing.assert_allclose(got["ratio"], np.exp(log_ratio).mean(), rtol=1e-5)
    np.testing.assert_allclose(got["approx_kl"], (np.exp(log_ratio) - 1 - log_ratio).mean(), rtol=1e-4)
    np.testing.assert_allclose(got["kl"], (np.exp(gap) - 1 - gap).mean(), rtol=1e-4)
    np.testing.assert_allclose(got["entropy"], data["entropy"][mask].mean(), rtol=1e-5)
    assert got["tokens"] == mask.sum()


def test_a_divergence_that_is_in_the_reward_is_measured_but_not_in_the_loss():
    data = batch()
    got = sums("rloo", data, kl_name="k1_in_reward")
    np.testing.assert_allclose(got.metrics()["kl"], (data["new"] - data["reference"])[data["mask"]].mean(), rtol=1e-4)
    np.testing.assert_allclose(got.loss, sums("rloo", data, kl_name="none").loss, rtol=1e-6)


@cases
@given(split=st.lists(st.integers(0, 2), min_size=B * G, max_size=B * G))
@settings(max_examples=6)
def test_splitting_the_batch_never_matters(case, split):
    (name, options), data = CASES[case], batch()
    parts = [{**data, "mask": data["mask"] & (np.reshape(split, (B, G, 1)) == part)} for part in range(3)]
    whole = sums(name, data, **options)
    added = functools.reduce(lambda a, b: a + b, (sums(name, part, **options) for part in parts))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@cases
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_what_stands_in_the_padding_never_matters(case, poison):
    (name, options), clean = CASES[case], batch()
    dirty = {k: np.where(clean["mask"], v, poison) if v.shape == (B, G, S) else v for k, v in clean.items()}
    dirty["mask"] = clean["mask"]
    dirty["advantages"] = np.where(clean["mask"].any(-1), clean["advantages"], poison)
    got, want = sums(name, dirty, **options), sums(name, clean, **options)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    slope = jax.grad(lambda new: sums(name, {**dirty, "new": new}, **options).loss)(dirty["new"])
    assert np.isfinite(slope).all()
    assert (np.asarray(slope)[~clean["mask"]] == 0).all()


@cases
def test_wider_padding_never_matters(case):
    (name, options), data = CASES[case], batch()
    wide = {
        k: np.concatenate([v, np.zeros((B, G, 5), v.dtype)], -1) if v.shape == (B, G, S) else v for k, v in data.items()
    }
    for a, b in zip(
        jax.tree.leaves(sums(name, wide, **options)), jax.tree.leaves(sums(name, data, **options)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@cases
@given(order=st.permutations(range(G)))
@settings(max_examples=2)
def test_the_order_of_a_group_never_matters(case, order):
    (name, options), data = CASES[case], batch()
    moved = sums(name, {k: v[:, order] for k, v in data.items()}, **options)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(sums(name, data, **options)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_the_gradient_is_that_of_the_plain_policy_gradient(name):
    # Whatever the ratio is of and however it is bounded, its gradient begins as REINFORCE's: A · ∇log π.
    data = {**batch(), "old": batch()["new"]}
    slope = jax.grad(lambda new: sums(name, {**data, "new": new}, kl_weight=0.0).loss)(data["new"])
    lengths = np.maximum(data["mask"].sum(-1, keepdims=True), 1)
    want = np.where(data["mask"], -data["advantages"][..., None], 0)
    np.testing.assert_allclose(slope, want / lengths if name in ("grpo", "gspo") else want, rtol=1e-5)


@pytest.mark.parametrize("name", COMPLETION_RATIO)
@pytest.mark.parametrize("gap", [-80.0, 80.0])
def test_a_completion_far_from_its_sampler_has_a_finite_gradient(name, gap):
    data = {**batch(), "old": batch()["new"] - gap}
    slope = jax.grad(lambda new: sums(name, {**data, "new": new}).loss)(data["new"])
    assert np.isfinite(slope).all()


def test_the_entropy_bonus_raises_the_entropy():
    data = batch()
    slope = jax.grad(lambda entropy: sums("dapo", {**data, "entropy": entropy}, entropy_weight=0.7).value())
    np.testing.assert_allclose(slope(data["entropy"]), np.where(data["mask"], -0.7 / data["mask"].sum(), 0), rtol=1e-5)
    without = jax.grad(lambda entropy: sums("dapo", {**data, "entropy": entropy}).value())(data["entropy"])
    assert (np.asarray(without) == 0).all()


def test_nothing_kept_is_a_loss_of_zero():
    for name in LOSSES:
        got = sums(name, {**batch(), "mask": np.zeros((B, G, S), bool)})
        assert got.value() == 0
        assert got.denominator == 0
        assert denominator(name, np.zeros((B, G, S), bool), MAX_TOKENS) == 1


def test_without_a_reference_there_is_no_kl_term():
    data = batch()
    with_none = sums("grpo", data, kl_name="none")
    assert with_none.kl == 0
    np.testing.assert_allclose(with_none.loss, sums("grpo", data, kl_weight=0.0).loss, rtol=1e-6)


def test_no_gradient_flows_into_old_reference_advantages_or_weights():
    data = batch()
    for name in ("grpo", "rloo", "cispo"):
        for key in ("old", "reference", "advantages", "importance"):
            slope = jax.grad(lambda value, key=key, n=name: sums(n, {**data, key: value}, importance=True).loss)
            assert (np.asarray(slope(data[key])) == 0).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"name": "gppo"}, "gppo"), ({"cispo_cap": "tlr"}, "tlr"), ({"kl_name": "k4"}, "k4")],
)
def test_an_unknown_name_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        sums(**{"name": "cispo", "data": batch(), **arguments})
