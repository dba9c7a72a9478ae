"""A .rug file."""

import pytest

from tests.sketches.helpers.rugs import codes_of, sketch_of, written


@pytest.fixture
def good(tmp_path):
    """A file of floats."""
    sketch = sketch_of()
    return written(tmp_path / "good.rug", codes_of(sketch), sketch)
