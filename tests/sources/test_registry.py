"""Recipes of sources: of each comes the same, and others are refused."""

import numpy as np
import pytest

import persianrug as pr
from persianrug.sources import from_recipe


def test_recipes_make_the_same_source(make_any):
    source = make_any(0.3)
    again = from_recipe(source.recipe())
    assert again == source
    assert hash(again) == hash(source)
    assert source != make_any(0.31)


def test_recipes_make_the_same_source_of_features_that_differ(differing):
    recipe = differing.recipe()
    assert recipe["name"] == differing.name
    assert from_recipe(recipe) == differing


def test_recipes_make_the_same_empirical_source():
    rng = np.random.default_rng(0)
    for _ in range(50):
        source = pr.Empirical(0.1, rng.normal(size=7), rng.random(7))
        assert from_recipe(source.recipe()) == source


@pytest.mark.parametrize(
    "recipe", [{}, {"name": "nope"}, {"name": "uniform"}, {"name": "uniform", "p": 0.1, "x": 1},
               {"name": "half-normal", "p": 0.1, "loc": 0.0}],
)  # fmt: skip
def test_bad_recipes_are_refused(recipe):
    with pytest.raises(ValueError, match=r"source .*; allowed"):
        from_recipe(recipe)
