"""Sketches of single cells: what is predicted, what is lost, and what sums of codes tell of groups of cells.

    python examples/cells.py

The cells that ship with persianrug are cut in halves at random. One half is fitted, which gives a profile: how
every gene is distributed. The other half measures the losses. Groups of ten of its cells are then added up without
being opened, code to code, and read as sums: the mean of a group, as a sensor network or a federated study would
have it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse

import persianrug as pr

CELLS = Path(__file__).parent / "data" / "pbmc68k_reduced.npz"
GROUP = 10


def main() -> None:
    """Print both tables."""
    cells = scipy.sparse.load_npz(CELLS).tocsr()
    order = np.random.default_rng(0).permutation(cells.shape[0])
    fitted, others = cells[order[:350]], cells[order[350:]].toarray()
    sketcher = pr.Sketcher().fit(fitted)
    held = sketcher.profile_.held_out.shape[0]
    print(f"{sketcher.profile_.rows} cells fitted, {held} held out, {len(others)} measured\n")
    print(" ratio  decoder     law   expected   measured   ± stderr   PCA")
    for ratio in (0.25, 0.5, 0.6):
        for decoder in ("relu", "bayes", "oamp"):
            plan = sketcher.plan(ratio=ratio, decoder=decoder)
            losses = np.square(sketcher.decode(sketcher.encode(others)) - others).mean(axis=1)
            stderr = losses.std(ddof=1) / len(losses) ** 0.5
            print(f"{ratio:6} {decoder:>8} {plan.law:7.4f} {plan.loss:10.4f} {losses.mean():10.4f} "
                  f"{stderr:10.4f} {plan.pca:7.4f}")  # fmt: skip

    groups = others.reshape(-1, GROUP, others.shape[1])
    sums = groups.sum(axis=1)
    print(f"\nSums of {GROUP} cells from sums of their codes, ratio 0.5:")
    plan = sketcher.plan(ratio=0.5, decoder="bayes")
    codes = pr.Codes.concatenate([sketcher.encode(group).sum() for group in groups])
    x_hat = sketcher.decode(codes)
    spread = np.square(sums - GROUP * cells[order[:350]].mean(axis=0)).mean()
    loss = np.square(x_hat - sums).mean()
    one_by_one = sketcher.decode(sketcher.encode(others)).reshape(groups.shape).sum(axis=1)
    print(
        f"  loss {loss:.3f} of a variance of {spread:.3f}; decoded one by one and then added: "
        f"{np.square(one_by_one - sums).mean():.3f}"
    )
    top = np.argsort(-sums, axis=1)[:, :20]
    found = np.argsort(-x_hat, axis=1)[:, :20]
    shared = np.mean([len(np.intersect1d(one, other)) for one, other in zip(top, found, strict=True)])
    print(f"  of the 20 strongest genes of a group {shared:.1f} are among the 20 strongest decoded")


if __name__ == "__main__":
    main()
