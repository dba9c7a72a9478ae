"""A linear sketch: rows of sparse features in, codes of fixed size out and back, with the loss known before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persianrug import sources
from persianrug._support import checks
from persianrug._support.arrays import Parts, as_tensor, bounded
from persianrug._support.sparse import by_rows
from persianrug._support.threads import one_thread
from persianrug.autoencoder import Autoencoder
from persianrug.channel import Channel
from persianrug.decoders import DECODERS, LMMSE, OAMP
from persianrug.decoders.base import Elementwise, spread_levels
from persianrug.decoders.lmmse import check_size
from persianrug.encoders import Rug
from persianrug.rounding import MOST_BITS, Quantiser
from persianrug.sketches.codes import Codes, Mixture, digest
from persianrug.sources import Covariance, Source

# Entries of a block of rows, where there are more.
BLOCK = 1 << 22
# Decoders are tuned to the share of entries that is missing, in steps of this.
_MISSING_STEP = 0.02


@dataclass(frozen=True, eq=False)
class Sketch(Parts):
    """Rows encoded by a rug, and read by a decoder that is tuned to how their features are distributed.

    Parameters
    ----------
    source : Source
        How features are distributed, each in its own way or all alike.
    rug : Rug
    bits : int from 1 to 16, optional
        What entries of a code are rounded to; by default they are not.
    decoder : str
        Name of the decoder.
    dithered : bool
        Whether levels have offsets (`persianrug.rounding`); those of sketches that were stored before do not.
    covariance : Covariance, optional
        How features go together, which the decoders lmmse and cvamp read codes by. Codes are rounded for the
        energies that it knows; where they are not rounded they are the same without it.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or source, rug and decoder do not go together.
    """

    source: Source
    rug: Rug
    bits: int | None = None
    decoder: str = "bayes"
    dithered: bool = True
    covariance: Covariance | None = None
    _tuned: dict[Any, Autoencoder] = field(default_factory=dict, init=False, repr=False, compare=False)
    _linear: dict[Any, LMMSE] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checks.instance("source", self.source, Source)
        checks.instance("rug", self.rug, Rug)
        kind = DECODERS[checks.one_of("decoder", self.decoder, DECODERS)]
        if self.source.n_sparse not in (None, self.rug.n_sparse):
            raise ValueError(
                f"source has {self.source.n_sparse} features; allowed with {self.rug}: {self.rug.n_sparse}"
            )
        if kind.one_sided and self.source.signed:
            raise ValueError(
                f"decoder is {self.decoder!r}; allowed with negative numbers: {', '.join(_names(signed=True))}"
            )
        if self.source.n_sparse is not None and self.decoder == "topk":
            raise ValueError(
                f"decoder is 'topk'; allowed where features differ: {', '.join(_names(signed=self.source.signed))}"
            )
        if self.bits is not None:
            object.__setattr__(self, "bits", checks.integer("bits", self.bits, 1, MOST_BITS))
        checks.flag("dithered", self.dithered)
        if self.covariance is not None:
            check_size(checks.instance("covariance", self.covariance, Covariance), self.rug)

    @cached_property
    def quantiser(self) -> Quantiser | None:
        """The rounding of codes."""
        if self.bits is None:
            return None
        if self.covariance is not None:
            energies = self.covariance.row_energies
            variance = self.rug.code_power * float(self.covariance.variance.mean())
            shares = np.full(len(energies), 1 / len(energies))
            channel = Channel(bits=self.bits).spread_for(variance, energies, shares, dithered=self.dithered)
            return channel.quantiser
        return spread_levels(Channel(bits=self.bits), self.source, self.rug, dithered=self.dithered).quantiser

    @property
    def mean_code(self) -> NDArray[np.float64]:
        """The code of the features' mean, (n_dense,), about which entries are rounded."""
        centre, _ = self.rug.centre(self.source.mean, torch.zeros(1, dtype=torch.float64))
        return np.zeros(self.rug.n_dense) if centre is None else centre[0].numpy()

    @property
    def middle(self) -> NDArray[np.float64]:
        """What the levels of every entry of a code lie symmetrically about, (n_dense,)."""
        return self.mean_code if self.quantiser is None else self.quantiser.middle(self.mean_code)

    @property
    def model(self) -> Autoencoder:
        """Encoder and decoder for rows as they are, tuned."""
        return self._model(self.mixture, self.rug.n_dense)

    def law(self) -> float:
        """Predicted loss per feature, if features follow the source and are independent, or have the covariance.

        Of the decoder lmmse it is an upper bound where features are >= 0; of cvamp it is that of lmmse.
        """
        return float(self.losses().mean())

    def losses(self) -> NDArray[np.float64]:
        """Predicted loss of every feature, (n_sparse,), whose mean is `law`."""
        decoder = self.model.decoder
        if isinstance(decoder, LMMSE) and self.covariance is not None:
            return decoder.law_of(self.covariance, self.rug, self.model.channel)
        return self.model.laws(self.source)

    def law_on(self, rows: Any, seed: int = 0) -> float:
        """Predicted loss per feature on rows like some that are known: the mean of `laws_on`."""
        return float(self.laws_on(rows, seed).mean())

    @one_thread()
    def laws_on(self, rows: Any, seed: int = 0) -> NDArray[np.float64]:
        """Predicted loss per feature of each of some rows that are known, without a code of them.

        Interference is taken to be Gaussian, of the energy of the row (docs/laws.md): feature x_i of a row is seen
        as y_i = x_i + sigma_i z_i, sigma_i^2 = g sum_{j != i} (x_j - mean_j)^2 / (n_sparse - 1), with z_i drawn
        anew, and decoded. So amplitudes need not follow the source, only the decoder takes them to. An iterative
        decoder sees fresh z in every iteration, with the error that is left: its state evolution. The decoders
        lmmse and cvamp read real codes, with Gaussian noise for that of rounding.

        Parameters
        ----------
        rows : array or SciPy sparse matrix (rows, n_sparse)
        seed : int >= 0
            Of z.

        Returns
        -------
        array (rows,)

        Raises
        ------
        ValueError
            If rows have another shape, are not finite or beyond 1e30, or the decoder is topk.
        """
        model, rug = self.model, self.rug
        if not isinstance(model.decoder, Elementwise | OAMP | LMMSE):
            raise ValueError(f"decoder is {self.decoder!r}; allowed on rows: all others")
        generator = torch.Generator().manual_seed(checks.seed(seed))
        mean = torch.from_numpy(np.broadcast_to(self.source.mean, rug.n_sparse).copy())
        noise = model.channel.variance
        losses = []
        for block in self._blocks(rows):
            bounded("rows", block, checks.LARGEST)
            x = block.double()

            def seen(x: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
                power = energy * float(rug.interference) + noise * rug.n_sparse / rug.n_dense
                sigma = power.clamp(min=0.0).sqrt()
                return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype), sigma

            if isinstance(model.decoder, LMMSE):
                # Nothing is taken to be Gaussian but the noise of rounding.
                z = rug.encode(x)
                z += noise**0.5 * torch.randn(z.shape, generator=generator, dtype=z.dtype)
                x_hat = model.decode(z)
            elif isinstance(model.decoder, Elementwise):
                # Not sum_j W_ij^2 (x_j - mean_j)^2: z_i stands for W_ij, which would count twice.
                squares = (x - mean).square()
                energy = (squares.sum(dim=1, keepdim=True) - squares) / (rug.n_sparse - 1)
                x_hat = model.decoder(seen(x, energy)[0])
            else:
                x_hat = model.decoder.evolve(x, mean, seen)
            losses.append((x_hat - x).square().mean(dim=1))
        return torch.cat(losses).detach().numpy()

    def encode(self, rows: Any) -> Codes:
        """Codes of rows, rounded if the sketch has bits.

        Parameters
        ----------
        rows : array, tensor or SciPy sparse matrix (rows, n_sparse)
            Numbers of other types than float32 and float64 become float64.

        Returns
        -------
        Codes
            Of arrays, or of tensors if rows are a tensor, of the dtype of rows.

        Raises
        ------
        ValueError
            If rows have another shape, are not finite or beyond 1e30, or are negative where the source is not.
        """
        blocks = []
        for block in self._blocks(rows):
            self._check(block)
            z = self.rug.encode(block, check=False)
            blocks.append(z if self.quantiser is None else self.quantiser.round(z, self._centre.to(z.device)))
        values: Any = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        return self.codes(values if isinstance(rows, Tensor) else values.numpy())

    def codes(self, values: Any) -> Codes:
        """Numbers (rows, n_dense) that are codes as `encode` makes them, from elsewhere."""
        return Codes(values, self.rug, self.mixture, self.bits)

    def decode(self, codes: Codes) -> Float[NDArray[Any], "rows n_sparse"] | Float[Tensor, "rows n_sparse"]:
        """Estimates of what was encoded, or of sums of that, by how that is distributed.

        Raises
        ------
        ValueError
            If the codes are of another rug, or hold infinity or sizes that no rows up to 1e30 have.
        """
        if not isinstance(codes, Codes):
            raise ValueError(f"codes is a {type(codes).__name__}; allowed: Codes, as encode and codes make them")
        if codes.digest != digest(self.rug.recipe()):
            raise ValueError(f"codes are of {codes.encoder}; allowed: of {self.rug}")
        given = as_tensor("codes", codes.values, self.rug.n_dense)
        # Squares of numbers far beyond all amplitudes are beyond those of 32 bits.
        low, high = bounded("codes", given, self.rug.largest_code, missing=True)
        z = given.double() if max(-low, high) > checks.SQUARES_FIT else given
        missing = codes.missing
        if not missing.any():
            out = self._model(codes.mixture, self.rug.n_dense).decode(z)
        else:
            out = z.new_empty(len(z), self.rug.n_sparse)
            step = max(1, round(_MISSING_STEP * self.rug.n_dense))
            levels = np.clip(np.round(missing / step).astype(int) * step, 1, self.rug.n_dense - 1)
            levels = np.where((missing == 0) | (missing == self.rug.n_dense), missing, levels)
            for lost in np.unique(levels):
                rows = torch.from_numpy(np.flatnonzero(levels == lost)).to(z.device)
                if lost == self.rug.n_dense:
                    # Nothing came through: the mean is all that is known.
                    mean = np.broadcast_to(codes.mixture.weight * self.source.mean, self.rug.n_sparse)
                    out[rows] = torch.tensor(mean, dtype=z.dtype, device=z.device)
                else:
                    out[rows] = self._model(codes.mixture, self.rug.n_dense - int(lost)).decode(z[rows])
        out = out.to(given.dtype)
        return out if isinstance(codes.values, Tensor) else out.numpy()

    def recipe(self) -> dict[str, Any]:
        """What the sketch is made from: numbers, and arrays in the recipe of its source."""
        recipe = {
            "encoder": self.rug.recipe(),
            "source": self.source.recipe(),
            "bits": self.bits,
            "decoder": self.decoder,
            "dithered": self.dithered,
        }
        return recipe if self.covariance is None else {**recipe, "covariance": self.covariance.recipe()}

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Sketch:
        """The sketch of a recipe.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            encoder = dict(recipe["encoder"])
            if encoder.pop("name") != Rug.name:
                raise ValueError(f"encoder is {recipe['encoder']['name']!r}; allowed: 'rug'")
            covariance = recipe.get("covariance")
            return cls(
                sources.from_recipe(recipe["source"]),
                Rug.stored(**encoder),
                recipe["bits"],
                recipe["decoder"],
                recipe.get("dithered", False),
                None if covariance is None else Covariance.from_recipe(covariance),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"recipe is none of a sketch: {error!r}; allowed: one that a sketch wrote") from None

    def _model(self, mixture: Mixture, kept: int) -> Autoencoder:
        """Encoder and decoder for rows of a mixture of which so many entries came through."""
        key = (mixture, kept)
        if key not in self._tuned:
            source = self.source
            if not mixture.single:
                source = sources.sum_of(
                    source, mixture.terms, mixture.weight, mixture.power, signed=mixture.signed
                )
            kind: Any = DECODERS[self.decoder]
            if kind.one_sided and source.signed:
                # The one-sided decoder of what has two sides.
                kind = DECODERS["soft"]
            decoder = self._of_covariance(mixture, source, kind) if issubclass(kind, LMMSE) else kind()
            channel = Channel(noise=math.sqrt(mixture.noise), erasures=1 - kept / self.rug.n_dense)
            self._tuned[key] = Autoencoder(self.rug, decoder, channel=channel).tune(source)
        return self._tuned[key]

    def _of_covariance(self, mixture: Mixture, source: Source, kind: Any) -> LMMSE:
        """The decoder of rows of a mixture, which keeps its equations for every number of missing entries."""
        key = (mixture, kind)
        if key not in self._linear:
            covariance = self.covariance
            if covariance is None:
                covariance = Covariance.of(self.source, self.rug.n_sparse)
            covariance = covariance.of_sums(mixture.weight, mixture.power)
            self._linear[key] = kind(covariance, positive=not source.signed).adapt(source, self.rug)
        return self._linear[key]

    @cached_property
    def _centre(self) -> Tensor:
        return torch.from_numpy(self.mean_code)

    @property
    def mixture(self) -> Mixture:
        """What a row of codes just encoded is: one vector, and the noise of rounding."""
        return Mixture(noise=0.0 if self.quantiser is None else self.quantiser.variance)

    def _blocks(self, rows: Any) -> Iterator[Tensor]:
        """Rows as tensors, in blocks where they are sparse."""
        checks.rows("rows", rows, self.rug.n_sparse)
        sparse = hasattr(rows, "tocsr")
        step = max(1, BLOCK // self.rug.n_sparse) if sparse else max(1, rows.shape[0])
        rows = by_rows(rows, np.float32 if rows.dtype == np.float32 else np.float64) if sparse else rows
        for start in range(0, max(rows.shape[0], 1), step):
            part = rows[start : start + step]
            dense = part.toarray() if sparse else part
            if isinstance(dense, np.ndarray) and dense.dtype not in (np.float32, np.float64):
                dense = dense.astype(np.float64)
            if isinstance(dense, Tensor) and dense.dtype not in (torch.float32, torch.float64):
                dense = dense.double()
            yield as_tensor("rows", dense)

    def _check(self, block: Tensor) -> None:
        least, _ = bounded("rows", block, checks.LARGEST)
        if least < 0 and not self.source.signed:
            raise ValueError(
                f"rows holds {least:g}; allowed: numbers >= 0, since none of those that were fitted is negative"
            )


def decoders_for(source: Source) -> list[str]:
    """Names of the decoders that a sketch of the source takes."""
    checks.instance("source", source, Source)
    return _names(signed=source.signed, alike=source.n_sparse is None)


def _names(*, signed: bool, alike: bool = False) -> list[str]:
    return [
        name for name, kind in DECODERS.items() if not (kind.one_sided and signed) and (alike or name != "topk")
    ]
