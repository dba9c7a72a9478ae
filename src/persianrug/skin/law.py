"""The law of a skin's stream: what its decoder will lose, predicted by state evolution of drawn frames.

In state evolution every iteration of the decoder sees the numbers themselves with fresh Gaussian noise, of the
variance that theory gives it; no transform is in it and no code. Frames are drawn from the profile: taxels are
touched and let go as often as it says, each by itself, and their numbers move from a frame to the next by one of
the profile's quantiles of change. Taxels of a robot are touched many at a time: frames of which more is touched
than of any drawn are read less well than this says. Without noise an iteration ends once the error is small, below
about 0.003, and how far below is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from persianrug._support import checks
from persianrug.skin.encoder import SkinEncoder
from persianrug.skin.profile import SkinProfile, check_skin
from persianrug.skin.touch import FreshLook, Touched, TouchFilter

_FRAMES, _SKIPPED = 192, 8


@dataclass(frozen=True)
class Prediction:
    """What a stream will lose.

    Attributes
    ----------
    error : float
        Root of the expected squared error over that of the frames: |x_hat - x| / |x|.
    within_1_percent, within_5_percent : float
        Shares of frames whose own relative error is at most that.
    explained : float
        Share of frames whose codes will be explained.
    """

    error: float
    within_1_percent: float
    within_5_percent: float
    explained: float


def predict(
    profile: SkinProfile,
    encoder: SkinEncoder,
    *,
    packet_loss: float = 0.0,
    packets: int = 8,
    memory: bool = True,
    frames: int = _FRAMES,
    seed: int = 0,
) -> Prediction:
    """The law of a stream of a skin.

    Parameters
    ----------
    profile : SkinProfile
    encoder : SkinEncoder
        Its lengths and bits count, its transform does not.
    packet_loss : float from 0 to 1
        The probability that a packet is lost, each by itself.
    packets : int >= 1
        How many the code of each block is sent in.
    memory : bool
        Whether frames are read with what was found in those before.
    frames : int >= 16
        How many are drawn.
    seed : int >= 0

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    check_skin(profile, encoder)
    checks.flag("memory", memory)
    if not 0 <= checks.finite("packet_loss", packet_loss) < 1:
        raise ValueError(f"packet_loss is {packet_loss:g}; allowed: from 0 to below 1")
    packets = checks.integer("packets", packets, 1)
    frames = checks.integer("frames", frames, 2 * _SKIPPED)
    generator = np.random.default_rng(checks.seed(seed))
    if profile.smooth:
        return _of_smooth(profile, encoder, packet_loss)
    lost, energy = np.zeros(frames), np.zeros(frames)
    explained = np.ones(frames, dtype=bool)
    for block, numbers in enumerate(encoder.numbers):
        taxels = numbers[:: encoder.axes] // encoder.axes
        size = encoder.transforms[block].size
        reader = TouchFilter(profile.prior(taxels), size)
        before: Touched | None = None
        missed = 1
        for k, x in enumerate(_drawn(profile, taxels, frames, generator)):
            come = generator.binomial(packets, 1 - packet_loss)
            entries = round(encoder.n_dense[block] * come / packets)
            if entries:
                rounding = _rounding(x, size, entries, encoder)
                noise, repeated = profile.noise**2 + rounding, max(rounding - profile.noise**2, 0.0)
                found = reader.step(
                    FreshLook(x.ravel(), size, entries, noise, repeated, generator), before, missed
                )
                missed = 1
                before = found.touched if memory and found.explained else None
                explained[k] &= found.explained
            else:
                found = reader.expected(before, missed)
                missed += 1
                explained[k] = False
            lost[k] += float(np.square(found.x - x).sum())
            energy[k] += float(np.square(x).sum())
    return _summed(lost[_SKIPPED:], energy[_SKIPPED:], float(explained[_SKIPPED:].mean()))


def _of_smooth(profile: SkinProfile, encoder: SkinEncoder, packet_loss: float) -> Prediction:
    """As `predict`, of frames that were held out in the fit; of a code without what is lost on average."""
    from persianrug.skin.smooth import SmoothReader

    parts = []
    for rows, transform, n_dense in zip(profile.smooth, encoder.transforms, encoder.n_dense, strict=True):
        parts.append(SmoothReader(rows, transform, max(1, round(n_dense * (1 - packet_loss)))).losses())
    lost, energy = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return _summed(lost, energy, 1.0)


def _summed(lost: NDArray[np.float64], energy: NDArray[np.float64], explained: float) -> Prediction:
    touched = energy > 0
    if not touched.any():
        return Prediction(0.0, 1.0, 1.0, explained)
    errors = np.sqrt(lost[touched] / energy[touched])
    return Prediction(
        error=float(np.sqrt(lost.sum() / energy.sum())),
        within_1_percent=float((errors <= 0.01).mean()),
        within_5_percent=float((errors <= 0.05).mean()),
        explained=explained,
    )


def _drawn(
    profile: SkinProfile, taxels: NDArray[np.int64], frames: int, generator: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Frames (n, axes) of a block, one after the other."""
    p, mean = profile.p[taxels], profile.mean[taxels]
    deviation = np.sqrt(profile.variance[taxels])
    # As often as touches end others begin.
    begin = np.where(p < 1, np.minimum(profile.leave * p / np.maximum(1 - p, 1e-9), 1.0), 1.0)
    on = generator.random(len(p)) < p
    x = mean + deviation * generator.standard_normal(mean.shape)
    for _ in range(frames):
        # A touch presses.
        x[:, 0] = np.abs(x[:, 0])
        yield np.where(on[:, None], x, 0.0).astype(np.float32)
        stays = on & (generator.random(len(p)) >= profile.leave)
        begins = ~on & (generator.random(len(p)) < begin)
        # A step back towards the mean and one away from it, such that E |x' - x|^2 = change^2 E |x|^2.
        change = profile.change[generator.integers(len(profile.change))]
        forget = np.minimum(change**2 * (deviation**2 + mean**2) / np.maximum(2 * deviation**2, 1e-12), 1.0)
        forget = np.where(stays[:, None], forget, 1.0)
        away = np.sqrt(forget * (2 - forget)) * deviation
        x = mean + (1 - forget) * (x - mean) + away * generator.standard_normal(x.shape)
        on = stays | begins


def _rounding(x: NDArray[np.float32], size: int, entries: int, encoder: SkinEncoder) -> float:
    """The variance of the rounding of a code's entries, where the median of their largest makes the exponent."""
    deviation = float(np.square(x).sum() / size) ** 0.5
    step = encoder.resolution / size**0.5
    top = deviation * -float(ndtri(np.log(2) / (2 * entries)))
    exponent = max(0, int(np.ceil(np.log2(max(top / step, 1e-9) / (2 ** (encoder.bits - 1) - 1)))))
    return (step * 2.0**exponent) ** 2 / 12 if exponent else encoder.resolution**2 / 12
