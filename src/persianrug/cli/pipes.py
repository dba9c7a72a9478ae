"""What commands on codes share: pipes, and how sizes and losses are said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from persianrug.sketches.sketch import Sketch


PIPE = Path("-")


def binary_stream(stream: Any) -> BinaryIO:
    """The bytes of a standard stream, or ValueError if it is closed."""
    if stream is None:
        raise ValueError("a standard stream is closed; allowed: an open one, or a file")
    buffer: BinaryIO = stream.buffer
    return buffer


def expected_loss(plan: dict[str, Any] | None, sketch: Sketch) -> float:
    """The loss that was planned with this decoder, or its law."""
    if plan is not None and plan.get("decoder") == sketch.decoder:
        return float(plan["loss"])
    return sketch.law()


def size_of(size: float) -> str:
    """A number of bytes, as it is said."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def succession_words(succession: float) -> str:
    """How near to each other rows that follow each other are."""
    return (
        f"rows follow each other: the next is {succession:.2g} times as far as a row drawn at random, "
        "in squared distance"
    )
