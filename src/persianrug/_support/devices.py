"""Devices and types of numbers: those that are here."""

from __future__ import annotations

import torch

from persianrug._support import checks


def known_device(value: torch.device | str) -> torch.device:
    """Return `value` as a device that is here, or raise ValueError."""
    try:
        found = torch.device(value)
        # Others may exist, but nothing here was ever run on them.
        if found.type not in ("cpu", "cuda"):
            raise RuntimeError
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError, OverflowError):
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        said = checks.shown(str(value) if isinstance(value, torch.device) else value)
        raise ValueError(f"device is {said}; allowed here: {', '.join(available)}") from None
    return found


def generator_on(device: torch.device | str, seed: int | torch.Generator) -> torch.Generator:
    """The generator of a seed on a device, or a generator that is there, or ValueError."""
    if not isinstance(seed, torch.Generator):
        return torch.Generator(device).manual_seed(checks.seed(seed))
    if seed.device.type != torch.device(device).type:
        raise ValueError(f"seed is a generator on {seed.device}; allowed: one on {device}, or an integer")
    return seed


def known_dtype(value: torch.dtype) -> torch.dtype:
    """Return `value` if it is a type that is computed with, or raise ValueError."""
    if not isinstance(value, torch.dtype) or value not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {checks.shown(value)}; allowed: torch.float32, torch.float64")
    return value
