"""Names that have changed: the old ones work, and say what they are called now."""

from __future__ import annotations

import warnings


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that something has another name now; by default whoever called the function that calls this."""
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=stacklevel)
