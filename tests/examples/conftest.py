"""What the tests of pages share."""

from functools import cache

import pytest

from persianrug.sketches import plan

# By the content of a profile: pages plan the same code again, for plan and for compress, which takes long.
_made = cache(plan.make_plan)


@pytest.fixture
def planned_once(monkeypatch):
    """Commands that ask for the same plan get the one that was made; that it is the same tests/cli compares."""
    monkeypatch.setattr(plan, "make_plan", _made)
