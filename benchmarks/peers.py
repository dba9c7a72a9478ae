"""Sketches beside what else makes rows smaller: zstandard, PCA, random projections. One run, one table.

    python -m benchmarks.peers

Everything is fitted on one half of the rows, or one recording, and measured on the other. Sizes are bytes a row;
what a method needs besides (components, projections, laws) is given apart, once for all rows.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import zstandard
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

import persianrug as pr
from persianrug.sketches import losses
from persianrug.sketches.hold_out import HoldOut

CELLS = Path(__file__).parents[1] / "examples" / "data" / "pbmc68k_reduced.npz"
HEADINGS = (
    "method",
    "bytes a row",
    "loss / variance",
    "kB besides",
    "encode, rows/s",
    "decode, rows/s",
    "adds up",
)


def timed(function: Callable, *arguments) -> tuple[object, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def row(name, size, loss, besides, encode, decode, additive) -> str:
    shown = "0" if loss == 0 else f"{loss:.2g}"
    return f"| {name} | {size:.0f} | {shown} | {besides / 1e3:.0f} | {encode:.2g} | {decode:.2g} | {additive} |"


def zstd(rows: np.ndarray, level: int, values: str) -> tuple[float, float, float, float]:
    """Each row by itself as gaps between active features and their values: mean bytes, loss, seconds."""
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    top = float(rows.max())

    def encode() -> list[bytes]:
        found = []
        for x in rows:
            place = np.flatnonzero(x)
            gaps = np.diff(place, prepend=-1).astype("<u2")
            kept = x[place].astype("<f4") if values == "float32" else np.rint(255 * x[place] / top).astype("u1")
            # Low and high bytes apart, as Blosc's shuffle has them.
            planes = b"".join(part.view("u1").reshape(-1, part.itemsize).T.tobytes() for part in (gaps, kept))
            found.append(compressor.compress(planes))
        return found

    def decode(found: list[bytes]) -> np.ndarray:
        out = np.zeros(rows.shape, np.float32)
        width = 2 + (4 if values == "float32" else 1)
        for x, content in zip(out, found, strict=True):
            planes = np.frombuffer(decompressor.decompress(content), "u1")
            count = len(planes) // width
            gaps = planes[: 2 * count].reshape(2, count).T.copy().view("<u2")[:, 0].astype(int)
            kept = planes[2 * count :].reshape(width - 2, count).T.copy()
            x[np.cumsum(gaps) - 1] = kept.view("<f4")[:, 0] if values == "float32" else kept[:, 0] * top / 255
        return out

    codes, encoding = timed(encode)
    back, decoding = timed(decode, codes)
    return float(np.mean([len(code) for code in codes])), float(np.square(back - rows).mean()), encoding, decoding


def sketches(
    fitted: np.ndarray, rows: np.ndarray, ratio: float
) -> Iterator[tuple[str, float, float, float, float, float]]:
    for decoder, bits in (("relu", None), ("bayes", None), ("oamp", None), ("oamp", 8)):
        sketcher = pr.Sketcher(ratio, bits=bits, decoder=decoder).fit(fitted)
        plan = sketcher.plan_
        codes, encoding = timed(sketcher.encode, rows)
        back, decoding = timed(sketcher.decode, codes)
        loss = float(np.square(back - rows).mean())
        name = f"sketch, {decoder}" + (f", {bits} bits" if bits else "")
        yield (
            f"{name} (expected {plan.loss / plan.variance:.2g})",
            plan.bytes_per_row,
            loss,
            encoding,
            decoding,
            24 * len(sketcher.profile_.source.p),
        )


def table(title: str, fitted: np.ndarray, rows: np.ndarray, ratio: float) -> None:
    variance, n = float(np.var(rows, axis=0).mean()), rows.shape[1]
    k = round(ratio * n)
    print(
        f"\n{title}: {len(rows)} rows x {n} features, {np.mean(rows != 0):.1%} active, {4 * n} bytes a row dense\n"
    )
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---|---|---|---|---|---|---|")
    for name, size, loss, encoding, decoding, besides in sketches(fitted, rows, ratio):
        print(row(name, size, loss / variance, besides, len(rows) / encoding, len(rows) / decoding, "yes"))
    for name, reduction in (
        ("PCA", PCA(min(k, len(fitted) - 1), random_state=0)),
        ("GaussianRandomProjection", GaussianRandomProjection(k, random_state=0, compute_inverse_components=True)),
        ("SparseRandomProjection", SparseRandomProjection(k, random_state=0, compute_inverse_components=True)),
    ):
        reduction.fit(fitted)
        codes, encoding = timed(reduction.transform, rows)
        back, decoding = timed(reduction.inverse_transform, np.ascontiguousarray(codes))
        loss = float(np.square(back - rows).mean())
        size = 4 * codes.shape[1]
        print(row(f"{name}, {codes.shape[1]} numbers", size, loss / variance, size * n, len(rows) / encoding,
                  len(rows) / decoding, "yes"))  # fmt: skip
    for level, values in ((3, "float32"), (19, "float32"), (19, "8 bits")):
        size, loss, encoding, decoding = zstd(rows, level, values)
        print(row(f"zstandard {level} of the sparse row, {values}", size, loss / variance, 0, len(rows) / encoding,
                  len(rows) / decoding, "no"))  # fmt: skip


def by_ratio(title: str, fitted: np.ndarray, rows: np.ndarray, ratios: tuple[float, ...]) -> None:
    """One line for each ratio: the decoder that `auto` takes at 8 bits, and what else could be done."""
    variance, n = float(np.var(rows, axis=0).mean()), rows.shape[1]
    held, fitter = HoldOut("auto", len(fitted)), pr.ProfileFitter(n)
    fitter.add(fitted, held.groups(0, fitted))
    profile = fitter.profile()
    packed = [zstd(rows, 19, values) for values in ("float32", "8 bits")]
    exact, coarse = (f"{size:.0f}, {loss / variance:.2g}" for size, loss, _, _ in packed)
    for ratio in ratios:
        plan, sketch = pr.make_plan(profile, ratio=ratio, bits=8)
        lost = float(losses(sketch, rows).mean()) / variance
        besides = 24 * n + (0 if sketch.covariance is None else sketch.covariance.bytes)
        pca = PCA(min(plan.n_dense, len(fitted) - 1), random_state=0).fit(fitted)
        projection = GaussianRandomProjection(plan.n_dense, random_state=0, compute_inverse_components=True).fit(
            fitted
        )
        left = [
            float(np.square(method.inverse_transform(method.transform(rows)) - rows).mean()) / variance
            for method in (pca, projection)
        ]
        count = pca.n_components_
        print(f"| {title} | {ratio:g} | {plan.decoder}: {plan.bytes_per_row}, {besides / 1e3:.0f}, {lost:.2g} "
              f"| {4 * count}, {4e-3 * count * n:.0f}, {left[0]:.2g} | {4 * plan.n_dense}, {left[1]:.2g} "
              f"| {exact} | {coarse} |")  # fmt: skip


def frames(name: str) -> np.ndarray:
    return np.asarray(pr.read_rows(CELLS.parent / f"{name}.npz"))


def main() -> None:
    rows = scipy.sparse.load_npz(CELLS).toarray().astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    table("Cells", rows[order[:350]], rows[order[350:]], 0.6)
    source = pr.SparseUniform(pr.zipf_rates(4096, 0.01))
    drawn = source.sample(4096, 4096, seed=0).numpy()
    table("Independent features at Zipf-like rates", drawn[:2048], drawn[2048:], 0.1)
    headings = (
        "data",
        "ratio",
        "sketch at 8 bits",
        "PCA",
        "random projection",
        "zstandard 19",
        "zstandard 19, 8 bits",
    )
    print("\nBytes a row, kB besides and loss / variance:\n")
    print("| " + " | ".join(headings) + " |\n|---|---|---|---|---|---|---|")
    by_ratio("cells", rows[order[:350]], rows[order[350:]], (0.6, 0.5, 0.25))
    sheet = [frames(f"mattress_{number}") for number in range(3)]
    by_ratio("mattress, another recording", np.vstack(sheet[:2]), sheet[2], (0.5, 0.25, 0.125))
    by_ratio("insoles, another recording", frames("insoles_0"), frames("insoles_1"), (0.5, 0.25, 0.125))
    by_ratio("Zipf-like rates", drawn[:2048], drawn[2048:], (0.1, 0.05))


if __name__ == "__main__":
    # Half of the rows are fewer than the components that PCA is asked for.
    warnings.simplefilter("ignore")
    sys.exit(main())
