import pytest

# What they assert is shown as what tests assert.
pytest.register_assert_rewrite("tests.sketches.helpers")
