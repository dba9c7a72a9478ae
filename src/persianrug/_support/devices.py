"""Devices: those that are here."""

from __future__ import annotations

import torch


def known_device(value: torch.device | str) -> torch.device:
    """Return `value` as a device that is here, or raise ValueError."""
    try:
        found = torch.device(value)
        # Others may exist, but nothing here was ever run on them.
        if found.type not in ("cpu", "cuda"):
            raise RuntimeError
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError):
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        said = str(value) if isinstance(value, torch.device) else value
        raise ValueError(f"device is {said!r}; allowed here: {', '.join(available)}") from None
    return found
