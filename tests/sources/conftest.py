"""Sources, one after the other."""

import pytest

from tests.sources.helpers import ALL_SOURCES, EVERY_ARRAY


@pytest.fixture(params=ALL_SOURCES)
def make_any(request):
    return ALL_SOURCES[request.param]


@pytest.fixture(params=EVERY_ARRAY)
def differing(request):
    return EVERY_ARRAY[request.param]()
