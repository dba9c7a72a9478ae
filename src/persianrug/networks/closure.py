"""Laws of a feature whose interference is Gaussian, with derivatives: what training without data goes by."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _relu_law(u: Tensor, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_z (u - max(m + s z, 0))^2, as in `decoders.relu`, and its derivatives by m and s."""
    t = m / s
    on = 0.5 * torch.erfc(t * -math.sqrt(0.5))
    density = torch.exp(-0.5 * t * t) * (1 / math.sqrt(2 * math.pi))
    gap = u - m
    errors = u * u * (1 - on) + (gap * gap + s * s) * on - s * (u + gap) * density
    return errors, 2 * (s * density - gap * on), 2 * (s * on - u * density)


def _identity_law(u: Tensor, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_z (u - m - s z)^2 and its derivatives by m and s."""
    gap = u - m
    return gap * gap + s * s, -2 * gap, 2 * s


LAWS = {"relu": _relu_law, "identity": _identity_law}
