"""Compiled loops are kept where they can be, and work where they cannot."""

import errno
import importlib.util

import numba
import numpy as np

from persianrug._support.compiled import compiled

SOURCE = "def twice(x):\n    for i in range(x.size):\n        x[i] *= 2\n"


def twice(path):
    """A function of a file."""
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("twice_of_a_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


def works(function):
    x = np.arange(3.0)
    function(x)
    return x.tolist() == [0, 2, 4]


def test_what_is_compiled_is_kept_beside_the_source(tmp_path):
    function = compiled(twice(tmp_path / "twice.py"))
    assert works(function)
    assert list((tmp_path / "__pycache__").glob("twice.twice-*.nbi"))
    again = compiled(twice(tmp_path / "twice.py"))
    assert works(again)
    assert sum(again.stats.cache_hits.values()) == 1


def test_without_a_place_to_keep_it(tmp_path, monkeypatch):
    # As in a container that can write nowhere.
    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", _full)
    assert works(compiled(twice(tmp_path / "twice.py")))
    assert not (tmp_path / "__pycache__").exists()


def test_with_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", _full)
    assert works(compiled(twice(tmp_path / "twice.py")))


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
