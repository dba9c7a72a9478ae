"""What a stream of a skin will cost and lose, or how small its codes can be for an error: by the law alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from persianrug._support import checks
from persianrug.skin.encoder import Code, SkinEncoder
from persianrug.skin.law import Prediction, predict
from persianrug.skin.packets import packets_of
from persianrug.skin.profile import SkinProfile

# Steps in which a ratio is searched for, a doubling in so many; frames of the law at each, and in the end.
_STEPS, _FEW, _FRAMES = 8, 64, 192
# No search goes beyond.
_MOST_RATIO = 1024.0


@dataclass(frozen=True)
class SkinPlan:
    """A stream, as it is expected.

    Attributes
    ----------
    ratio : float
        Numbers of a frame for one of its code.
    bits, packets : int
        Of each number of a code; packets of the code of each block.
    packet_loss : float
        The probability that a packet is lost.
    predicted : Prediction
        What it loses.
    packets_per_frame, bytes_per_frame : int
        With headers and checksums.
    bytes_per_second : float or None
        At the profile's rate, where it knows one.
    """

    ratio: float
    bits: int
    packets: int
    packet_loss: float
    predicted: Prediction
    packets_per_frame: int
    bytes_per_frame: int
    bytes_per_second: float | None


def make_plan(
    profile: SkinProfile,
    *,
    ratio: float | None = None,
    target_error: float | None = None,
    bits: int = 12,
    packet_loss: float = 0.0,
    packets: int = 8,
    seed: int = 0,
) -> SkinPlan:
    """Predict what a stream loses, of a ratio or of the largest ratio with which it loses no more than a target.

    Parameters
    ----------
    profile : SkinProfile
    ratio : float >= 1, optional
    target_error : float > 0, optional
        The relative L2 error that is allowed; one of both is given.
    bits : int, 2 to 16
    packet_loss : float from 0 to 1
    packets : int >= 1
        In how many packets the code of each block is sent.
    seed : int >= 0
        Of the frames that the law draws.

    Raises
    ------
    ValueError
        If an argument is out of its range, or no ratio reaches the target.
    """
    checks.instance("profile", profile, SkinProfile)
    if (ratio is None) == (target_error is None):
        both = "are both given" if ratio is not None else "are both missing"
        raise ValueError(f"ratio and target_error {both}; allowed: one of them")

    def law(tried: float, frames: int) -> Prediction:
        encoder = profile.encoder(tried, bits=bits)
        return predict(profile, encoder, packet_loss=packet_loss, packets=packets, frames=frames, seed=seed)

    if ratio is None:
        target = checks.positive("target_error", target_error)  # type: ignore[arg-type]
        least = law(1.0, _FEW).error
        if least > target:
            raise ValueError(f"target_error is {target:g}; allowed: {least:.2g} or more, what a code as long as "
                             "the frame loses")  # fmt: skip
        low, high = 0, int(_STEPS * math.log2(min(_MOST_RATIO, profile.layout.n_sparse)))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if law(2 ** (middle / _STEPS), _FEW).error <= target else (low, middle)
        # With more frames it may be a step less.
        while low > 0 and law(2 ** (low / _STEPS), _FRAMES).error > target:
            low -= 1
        ratio = 2 ** (low / _STEPS)
    predicted = law(ratio, _FRAMES)
    encoder = profile.encoder(ratio, bits=bits)
    count, size = size_of_frame(encoder, packets)
    return SkinPlan(
        ratio=ratio,
        bits=encoder.bits,
        packets=packets,
        packet_loss=packet_loss,
        predicted=predicted,
        packets_per_frame=count,
        bytes_per_frame=size,
        bytes_per_second=None if profile.rate is None else size * profile.rate,
    )


def size_of_frame(encoder: SkinEncoder, packets: int) -> tuple[int, int]:
    """How many packets, and bytes with their headers, every frame of an encoder takes."""
    sent = [
        packet
        for block, length in enumerate(encoder.n_dense)
        for packet in packets_of(Code(0, block, np.zeros(length, np.int16), 0, encoder.bits), 0, packets)
    ]
    return len(sent), sum(map(len, sent))
