"""The catalogue of drawn products: look-alikes in one attribute, no two alike, splits apart."""

import pytest

from evads_jax.data.products.catalogue import FAMILY, SEEN, SPLITS, TOLD, draw_catalogue
from evads_jax.errors import UserError

COUNT = 60


@pytest.fixture(scope="module")
def catalogues():
    return {(seed, split): draw_catalogue(seed, split, COUNT) for seed in (0, 1) for split in SPLITS}


def test_no_two_products_are_alike_and_no_split_shares_one_whatever_the_seeds(catalogues):
    for scripts in catalogues.values():
        assert len({script.key for script in scripts}) == COUNT
    keys = {split: {s.key for seed in (0, 1) for s in catalogues[seed, split]} for split in SPLITS}
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]


def test_a_family_is_a_product_and_two_that_differ_in_one_attribute_seen_and_one_told(catalogues):
    for scripts in catalogues.values():
        for i in range(0, COUNT, FAMILY):
            first, seen, told = scripts[i : i + FAMILY]
            for other, group in ((seen, SEEN), (told, TOLD)):
                (name,) = [n for n in first.facts if first.facts[n] != other.facts[n]]
                assert name in group
                assert (other.shade, other.price) == (first.shade, first.price)
                assert other.seed != first.seed


def test_the_same_seed_gives_the_same_products_and_more_of_them_only_adds():
    few, many = draw_catalogue(3, "test", 8), draw_catalogue(3, "test", 20)
    assert many[:8] == few == draw_catalogue(3, "test", 8)
    assert draw_catalogue(4, "test", 8) != few


def test_more_products_than_can_be_found_are_refused():
    with pytest.raises(UserError, match=r"10000000 validation products, \d+ can be drawn .data.products_validation"):
        draw_catalogue(0, "validation", 10_000_000)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="nonsense"):
        draw_catalogue(0, "nonsense", 3)
