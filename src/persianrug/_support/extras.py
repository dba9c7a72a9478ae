"""What is installed on demand."""

from __future__ import annotations


def installing(extra: str) -> str:
    """How an extra of pyproject.toml is installed, for messages; no package index has one of this name."""
    return f"pip install '.[{extra}]' in a clone of persianrug"
