"""Paid work is told before it is done and never costs more than allowed."""

import pytest

from evads_jax.errors import UserError
from evads_jax.judge.budget import Budget, BudgetSpent, message_tokens, tokens

PRICES = (("judge", 1.0, 10.0), ("judge-mini", 0.1, 1.0))


def test_the_longest_matching_name_gives_the_price():
    assert Budget("judge-mini-2", PRICES).cost(1_000_000, 1_000_000) == pytest.approx(1.1)
    assert Budget("judge-2", PRICES).cost(1_000_000, 1_000_000) == pytest.approx(11)
    assert Budget("other", PRICES).cost(1_000_000, 1_000_000) == 0


def test_a_limit_without_a_price_is_refused_before_any_work():
    with pytest.raises(UserError, match=r"judge\.prices"):
        Budget("other", PRICES, max_cost=1.0)


def test_an_estimate_takes_the_longest_reply_until_it_knows_better():
    budget = Budget("judge", PRICES)
    assert budget.estimate([1000] * 10, 500).output_tokens == 5000
    for _ in range(20):
        budget.settle(budget.reserve(1000, 500), 1000, 50)
    estimate = budget.estimate([1000] * 10, 500)
    assert estimate.output_tokens == 500
    assert estimate.cost == pytest.approx(10 * (1000 + 50 * 10) / 1e6)
    assert estimate.line("USD") == "10 calls, about 10,000 tokens in and 500 out, about 0.0150 USD"
    assert "price unknown" in Budget("other", ()).estimate([5], 5).line("USD")


def test_work_beyond_the_limit_is_refused_and_told_with_its_figures():
    budget = Budget("judge", PRICES, max_cost=0.01, spent=0.004)
    budget.admit(budget.estimate([1000], 500), "x")
    with pytest.raises(BudgetSpent, match=r"costs about 0\.0120 USD.*0\.0040 are spent"):
        budget.admit(budget.estimate([1000] * 2, 500), "x")


def test_calls_under_way_count_with_the_most_they_can_cost():
    budget = Budget("judge", PRICES, max_cost=0.0125)
    first = budget.reserve(1000, 500)
    budget.reserve(1000, 500)
    assert budget.crowded(1000, 500)
    with pytest.raises(BudgetSpent):
        budget.reserve(1000, 500)
    assert budget.settle(first) == 0
    budget.settle(budget.reserve(1000, 500), 1000, 500)
    assert budget.spent == pytest.approx(0.006)
    assert not budget.crowded(100, 5)
    assert not budget.crowded(1_000_000, 5)


def test_chinese_is_counted_by_character():
    assert tokens("红色水壶") == 4
    assert tokens("a kettle") == 2
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    text = [{"role": "user", "content": "a kettle"}]
    assert message_tokens([{"role": "user", "content": [{"type": "text", "text": "a kettle"}, image]}]) > 500
    assert message_tokens(text) < 20
