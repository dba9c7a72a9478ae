"""A store, opened once or often."""

import pytest

from persianrug.sweeps.store import Store


@pytest.fixture
def open_store(where):
    """Open the store, as another process would."""
    opened = []

    def open_store(**options):
        opened.append(Store(where, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()
