"""OAMP: orthogonal approximate message passing, which reads the same code iteratively, and its state evolution."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug._support import checks
from persianrug._support.arrays import Parts, new_rows, place
from persianrug._support.threads import share
from persianrug.channel import Channel
from persianrug.decoders.base import CLEAR, Decoder, check_parts, variances
from persianrug.encoders.base import Encoder, kept_entries
from persianrug.encoders.energy import Energy, vector_energy
from persianrug.sources import Each, Source, SparseUniform

# So many features go through the iteration at a time: their dozen intermediate tensors stay in cache.
_CHUNK = 1 << 17

# A vector whose estimate has not become better by 1% for so many iterations has got as far as it gets. Some rest
# for 14 before they come down: at p = 0.1, ratio 0.23, n_sparse 512 19 of 120 are lost with a patience of 4, and
# 11, as with no end of it, from 15 on.
_PATIENCE, _BETTER = 16, 0.99
# And one that changes by no more than 0.1% for so many iterations rests for good.
_STILL, _CHANGE = 3, 1e-3


@dataclass(frozen=True, eq=False)
class Step(Parts):
    """One iteration.

    Attributes
    ----------
    x_hat : tensor (rows, n_sparse)
        The posterior mean of this iteration.
    expected : tensor (rows,)
        What each vector believes to be its mean squared error per feature: the mean posterior variance.
    sigma : tensor (rows,)
        The noise that each vector sees on its features.
    """

    x_hat: Float[Tensor, "rows n_sparse"]
    expected: Float[Tensor, " rows"]
    sigma: Float[Tensor, " rows"]


@dataclass(frozen=True, eq=False)
class OAMP(Decoder):
    """Iterate between the code and the features' posterior until the code is explained (arXiv 1602.06509).

    With A the encoder scaled to orthonormal rows, ratio = n_dense / n_sparse of what the channel lets through, w^2
    the variance of its noise, and x_hat = mean at first:

        e = z - A x_hat,   v = |e|^2 / n_dense - w^2,   y = x_hat + A^T e / ratio,
        sigma^2 = v (1 - ratio) / ratio + w^2 / ratio,
        m, eta = posterior mean and variance of x given y = x + sigma noise, eta averaged over features,
        x_hat = m + (m - y) eta / (sigma^2 - eta).

    The last line takes out of m what it owes to the noise of y, so that errors do not feed on themselves. Every
    vector measures its own v. The estimate is m, of the iteration whose eta is least: below the threshold of state
    evolution it stops there, and does not diverge.

    Parameters
    ----------
    source : Source
        What the features are taken to be; `adapt` sets it.
    iterations : int >= 1
        At most so many.
    damping : float in (0, 1]
        Share of the new x_hat in the next; less than 1 where data follows no law exactly.
    tolerance : float > 0
        A vector is recovered, and done, when eta is this part of the features' second moment.
    """

    source: Source = field(default_factory=lambda: SparseUniform(0.5))
    iterations: int = 60
    damping: float = 1.0
    tolerance: float = 1e-12

    name = "oamp"

    def __post_init__(self) -> None:
        checks.instance("source", self.source, Source)
        object.__setattr__(self, "iterations", checks.integer("iterations", self.iterations, 1))
        object.__setattr__(self, "damping", checks.probability("damping", self.damping))
        object.__setattr__(self, "tolerance", checks.positive("tolerance", self.tolerance))

    def adapt(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> OAMP:
        variances(source, encoder, channel)
        _ = encoder.frame_bound
        return OAMP(source, self.iterations, self.damping, self.tolerance)

    def decode(
        self, z: Float[Tensor, "rows n_dense"], encoder: Encoder, mean: Each = 0.0, channel: Channel = CLEAR
    ) -> Float[Tensor, "rows n_sparse"]:
        flat = z.reshape(-1, z.shape[-1])
        rows = max(1, _CHUNK // encoder.n_sparse) if z.device.type == "cpu" else max(1, len(flat))
        if z.requires_grad and torch.is_grad_enabled():
            out = torch.cat([self._decode(part, encoder, mean, channel) for part in flat.split(rows)])
        else:
            out = new_rows(flat, encoder.n_sparse)

            def chunk(k: int) -> None:
                # Operations on so few numbers take half as long in this mode.
                with torch.inference_mode():
                    part = self._decode(flat[k * rows : (k + 1) * rows], encoder, mean, channel)
                out[k * rows : (k + 1) * rows] = part

            share(chunk, -(-len(flat) // rows))
        return out.reshape(*z.shape[:-1], encoder.n_sparse)

    def _decode(self, z: Tensor, encoder: Encoder, mean: Each, channel: Channel) -> Tensor:
        best: Tensor | None = None
        for step, rows, better in self._until_done(z, encoder, mean, channel):
            # The first estimate counts even if it is beyond all numbers, as that of a row beyond all amplitudes.
            if best is None or (len(rows) == len(z) and better.all()):
                best = step.x_hat
            elif better.any():
                chosen, places = (torch.from_numpy(part).to(z.device) for part in (better, rows[better]))
                best = best.index_copy(0, places, step.x_hat[chosen])
        return cast(Tensor, best)

    def _until_done(
        self, z: Tensor, encoder: Encoder, mean: Each, channel: Channel
    ) -> Iterator[tuple[Step, NDArray[np.int64], NDArray[np.bool_]]]:
        """The iterations, the vectors that take part, and which of these became better; until none is left.

        Vectors that are done leave once they are half of those that take part. Until then they are computed, but
        no longer become better: what is made of a vector does not depend on which others are with it.
        """
        rows, going = np.arange(len(z)), np.ones(len(z), dtype=bool)
        least = before = np.full(len(z), np.inf)
        idle = still = np.zeros(len(z), dtype=np.int64)
        iterations = self.steps(z, encoder, mean, channel)
        keep: Tensor | None = None
        with suppress(StopIteration):
            while True:
                step = iterations.send(keep)
                keep = None
                expected = step.expected.detach().cpu().numpy()
                # Of estimates that seem as good as the best the latest counts: the first may seem so by chance.
                better = going & (expected <= least / _BETTER)
                yield step, rows, better
                idle = np.where(expected < _BETTER * least, 0, idle + 1)
                still = np.where(abs(expected - before) > _CHANGE * expected, 0, still + 1)
                least, before = np.minimum(least, np.where(going, expected, np.inf)), expected
                going &= (idle < _PATIENCE) & (still < _STILL) & (least > self._enough)
                if not going.any():
                    return
                if 2 * going.sum() <= len(going):
                    keep = torch.from_numpy(going).to(z.device)
                    rows, idle, still = rows[going], idle[going], still[going]
                    least, before, going = least[going], before[going], going[going]

    @cached_property
    def _enough(self) -> float:
        return self.tolerance * float(np.mean(self.source.second_moment))

    def trace(
        self,
        x: Float[Tensor, "rows n_sparse"],
        z: Float[Tensor, "rows n_dense"],
        encoder: Encoder,
        mean: Each = 0.0,
        channel: Channel = CLEAR,
        units: float | Tensor = 1.0,
    ) -> NDArray[np.float64]:
        """Mean squared error (iterations, rows) of the estimate of every code z so far, after every iteration.

        Ends where `decode` does. Errors are in the given units, for every feature.
        """
        loss, trace = np.zeros(len(z)), []
        for step, rows, better in self._until_done(z, encoder, mean, channel):
            error = (step.x_hat - x[torch.from_numpy(rows).to(x.device)]) / units
            error = error.square().mean(-1, dtype=torch.float64)
            loss = loss.copy()
            loss[rows[better]] = error.cpu().numpy()[better]
            trace.append(loss)
        return np.array(trace)

    def steps(
        self, z: Float[Tensor, "rows n_dense"], encoder: Encoder, mean: Each = 0.0, channel: Channel = CLEAR
    ) -> Generator[Step, Tensor | None]:
        """The iterations on the codes, to the last, without the choice of the best.

        It can be sent a boolean tensor (rows,): only those codes then take further part.

        Raises
        ------
        ValueError
            If the encoder is no tight frame, or a code has no entry left.
        """
        n, scale = encoder.n_sparse, encoder.frame_bound**-0.5
        centre, mean = encoder.centre(mean, z)
        e = z if centre is None else z - centre
        missing: Tensor | None = None
        kept: float | Tensor = encoder.n_dense
        if channel.erasures:
            missing, kept = z.isnan(), kept_entries(z).to(z.dtype)
            e = e.masked_fill(missing, 0.0)
        ratio, noise = kept / n, channel.variance * scale**2
        interference, gain = (
            part if missing is not None else place(part, z)
            for part in (scale**2 / kept * ((1 - ratio) / ratio), scale**2 / ratio)
        )
        mean = place(mean, z) if np.ndim(mean) == 0 else mean
        one, little = place(1.0, z), place(1e-3, z)
        # Rounding leaves errors of this size in everything, and a sigma of 0 has no posterior.
        least = (4 * torch.finfo(z.dtype).eps) ** 2 * float(np.mean(self.source.second_moment / self.source.p))
        x: Tensor | None = None
        for _ in range(self.iterations):
            power = torch.linalg.vecdot(e, e).unsqueeze(-1) * interference
            if noise:
                power = (power - noise * ((1 - ratio) / ratio)).clamp_(min=0.0) + noise / ratio
            power = power.clamp_(min=least)
            y = encoder._adjoint(e * gain).add_(mean if x is None else x)
            sigma = power.sqrt()
            m, variance = self.source.denoise(y, sigma)
            eta = variance.mean(-1, keepdim=True)
            keep = yield Step(m, eta.squeeze(-1), sigma.squeeze(-1))
            if keep is not None:
                z, y, m, power, eta = (part[keep] for part in (z, y, m, power, eta))
                x = None if x is None else x[keep]
                if missing is not None:
                    missing, kept = missing[keep], cast(Tensor, kept)[keep]
                    ratio = kept / n
                    interference, gain = interference[keep], gain[keep]
            # Where the posterior is no narrower than the noise there is nothing to take out.
            share = eta / torch.maximum(power - eta, little * power)
            following = torch.lerp(y, m, share + one)
            x = following if x is None or self.damping == 1 else torch.lerp(x, following, self.damping)
            e = z - encoder._forward(x)
            if missing is not None:
                e = e.masked_fill(missing, 0.0)

    def evolve(
        self,
        x: Float[Tensor, "rows n_sparse"],
        mean: Float[Tensor, " n_sparse"],
        seen: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Float[Tensor, "rows n_sparse"]:
        """The best estimate of given features x if noise were fresh and Gaussian in every iteration.

        Parameters
        ----------
        seen : function
            Of x and the mean squared error (rows, 1) so far; y = x + sigma z, and sigma.
        """
        least = (4 * torch.finfo(x.dtype).eps) ** 2 * float(np.mean(self.source.second_moment / self.source.p))
        x_hat, best = mean.expand_as(x), x.new_full((len(x), 1), torch.inf)
        out, before, going = torch.empty_like(x), best, torch.ones_like(best, dtype=torch.bool)
        idle, still = torch.zeros_like(best), torch.zeros_like(best)
        for _ in range(self.iterations):
            error = (x_hat - x).square().mean(dim=1, keepdim=True)
            y, sigma = seen(x, error.clamp(min=least))
            sigma = sigma.clamp(min=least**0.5)
            m, variance = self.source.denoise(y, sigma)
            eta, power = variance.mean(-1, keepdim=True), sigma.square()
            better = going & (eta < best)
            out = torch.where(better, m, out)
            idle = torch.where(eta < _BETTER * best, 0, idle + 1)
            still = torch.where((eta - before).abs() > _CHANGE * eta, 0, still + 1)
            best, before = torch.where(better, eta, best), eta
            going &= (idle < _PATIENCE) & (still < _STILL) & (best > self._enough)
            if not bool(going.any()):
                break
            x_hat = torch.lerp(y, m, 1 + eta / torch.maximum(power - eta, 1e-3 * power))
        return out

    def limit(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        return self.state_evolution(source, encoder, channel).losses

    def law(self, source: Source, encoder: Encoder, channel: Channel = CLEAR) -> NDArray[np.float64]:
        check_parts(source, encoder, channel)
        return self.state_evolution(source, encoder, channel, vector_energy(source, encoder.n_sparse)).losses

    def state_evolution(
        self, source: Source, encoder: Encoder, channel: Channel = CLEAR, spread: Energy | None = None
    ) -> StateEvolution:
        """What the iteration will do, predicted; its damping, which changes the way but not the end, is left out.

        For n_sparse -> infinity, or averaged over the energy and the number of active features of a vector, to
        which the posterior is then not quite matched: with D the mean squared error of m, and a = eta / (sigma^2 -
        eta),

            v <- (1 + a)^2 D - 2 a (1 + a) eta + a^2 sigma^2,

        as E (m - x)(y - x) = eta by Stein's lemma, whatever x is. Where D = eta that is 1 / (1 / eta - 1 /
        sigma^2).
        """
        check_parts(source, encoder, channel)
        ratio = channel.kept(encoder.n_dense) / encoder.n_sparse
        noise = channel.variance / encoder.frame_bound
        if spread is None:
            spread = Energy(np.array([float(np.mean(source.variance))]), np.ones(1), np.ones(1))
        prior = None if self.source == source else self.source
        if prior is not None and prior.n_sparse is not None:
            source = source.repeated(encoder.n_sparse)
        # Features that are nearly alike in the source need not be so in the prior.
        merged, counts = source.merged() if prior is None else (source, None)
        least = 1e-30 * float(np.mean(source.second_moment))
        v, best, trace = spread.nodes.copy(), np.full(len(spread.nodes), np.inf), []
        loss, sigma, idle = best.copy(), best.copy(), np.zeros(len(best))
        going = np.arange(len(best))
        for _ in range(self.iterations):
            power = np.maximum((v[going] * (1 - ratio) + noise) / ratio, least)
            error, eta = _averages(merged, np.sqrt(power), spread.active[going], counts, prior)
            better = eta < best[going]
            loss[going] = np.where(better, error, loss[going])
            sigma[going] = np.where(better, np.sqrt(power), sigma[going])
            idle[going] = np.where(eta < _BETTER * best[going], 0, idle[going] + 1)
            best[going] = np.minimum(best[going], eta)
            trace.append(float(spread.weights @ loss))
            share = eta / np.maximum(power - eta, 1e-3 * power)
            following = (1 + share) ** 2 * error - 2 * share * (1 + share) * eta + share**2 * power
            v[going] = np.maximum(following, least)
            going = np.flatnonzero((idle < _PATIENCE) & (best > self._enough))
            if not len(going):
                break
        return StateEvolution(
            trace=np.array(trace),
            recovers=bool((best <= self._enough).all()),
            losses=_per_feature(source, sigma, spread, prior),
        )

    def formula(self) -> str:
        return f"E[x | y] for {self.source}, y read anew from the code up to {self.iterations} times"


@dataclass(frozen=True, eq=False)
class StateEvolution(Parts):
    """What OAMP will do, predicted.

    Attributes
    ----------
    trace : array (iterations,)
        Predicted loss per feature of the best estimate until then, after every iteration.
    recovers : bool
        Whether the loss falls below the tolerance: from a code without noise, exact recovery.
    losses : array (n_sparse,) or ()
        Predicted loss of every feature in the end.
    """

    trace: NDArray[np.float64]
    recovers: bool
    losses: NDArray[np.float64]


def recovery_threshold(source: Source) -> float:
    """The ratio above which OAMP recovers x exactly from a code without noise, for n_sparse -> infinity.

    State evolution comes down from a noise sigma while eta (1 - ratio) / (sigma^2 - eta) < ratio, that is while
    mmse(sigma) < ratio sigma^2. So the threshold is the largest mmse(sigma) / sigma^2. It is at least the number
    of active features per feature if these have a density, to which it tends for sigma -> 0.
    """
    merged, counts = checks.instance("source", source, Source).merged()
    scale = float(np.sqrt(np.mean(source.second_moment / source.p)))
    # Below, it is as in the limit; a discrete source has then no error left.
    grid = scale * np.geomspace(1e-3, 10, 49)
    for _ in range(3):
        share = _averages(merged, grid, np.ones(len(grid)), counts, None)[1] / grid**2
        best = int(np.argmax(share))
        grid = np.geomspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 15)
    return min(float(share.max()), 1.0)


def _averages(
    source: Source,
    sigma: NDArray[np.float64],
    active: NDArray[np.float64],
    counts: NDArray[np.float64] | None,
    prior: Source | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean squared error and mean posterior variance over features, at each of the sigmas (k,)."""
    parts = _mixed(source, sigma, active, prior)
    if source.n_sparse is None:
        return parts[0], parts[1]
    return tuple(np.average(part, axis=-1, weights=counts) for part in parts)  # type: ignore[return-value]


def _mixed(
    source: Source, sigma: NDArray[np.float64], active: NDArray[np.float64], prior: Source | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if source.n_sparse is not None:
        sigma, active = sigma[:, None], active[:, None]
    on, off, on_variance, off_variance = source.mismatch(sigma, sigma, prior)
    p = np.minimum(source.p * active, 1.0)
    return p * on + (1 - p) * off, p * on_variance + (1 - p) * off_variance


def _per_feature(
    source: Source, sigma: NDArray[np.float64], spread: Energy, prior: Source | None
) -> NDArray[np.float64]:
    error, _ = _mixed(source, sigma, spread.active, prior)
    return np.asarray(np.tensordot(spread.weights, error, axes=1))
