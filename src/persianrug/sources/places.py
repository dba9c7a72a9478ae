"""Where features are active, in draws of features that rarely are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bernoulli_places(count: int, p: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Sorted places of the successes in `count` Bernoulli(p) trials, drawn by the gaps between them.

    The gaps are geometric: 1 + floor(E / -log(1 - p)) for exponential E.
    """
    rate = -math.log1p(-p)
    pieces: list[Tensor] = []
    last = -1
    while last < count:
        left = (count - last) * p
        draws = int(left + 5 * math.sqrt(left) + 8)
        gaps = torch.empty(draws, dtype=torch.float64, device=device).exponential_(rate, generator=generator)
        # Clamped, since a gap beyond the end is a gap beyond the end, and the sum of gaps must not overflow.
        places = gaps.clamp_(max=count).floor_().to(torch.int64).add_(1).cumsum_(0).add_(last)
        pieces.append(places)
        last = int(places[-1])
    places = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return places[: int(torch.searchsorted(places, count))]
