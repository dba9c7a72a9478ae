"""Train networks of many sizes, and draw their losses beside the laws.

`python -m benchmarks.trained` trains those that are not in docs/trained.json, which is written after every network
(all take half an hour), and draws docs/trained.png; with `--draw` it only draws.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

import persianrug as pr
from persianrug import knots
from persianrug._support.files import write_whole
from persianrug.networks.descent import train
from persianrug.networks.symmetry import measure_symmetry
from persianrug.networks.training import Training

DOCS = Path(__file__).parent.parent / "docs"
RATIO = 0.25
RATES = (0.045, 0.01, 0.3)
# Sizes, and steps of batch 1024 at the default rate.
SIZES = {64: 4000, 128: 4000, 256: 4000, 512: 4000, 1024: 2000, 2048: 1000}


def trained(p: float, n: int) -> dict[str, float | str | None]:
    """One network, and what its weights look like."""
    source = pr.SparseUniform(p)
    result = train(Training.of_ratio(n, RATIO, source, steps=SIZES[n]))
    network = result.network
    closure = None
    # Where features are given up the diagonal is not positive, and there is no such autoencoder.
    with contextlib.suppress(ValueError):
        closure = network.autoencoder(source).limit(source)
    found = measure_symmetry(network.W_out, network.W_in, network.bias, source)
    return {
        "p": p, "ratio": RATIO, "n_sparse": n, "steps": result.steps, "seconds": round(result.seconds, 1),
        "loss": result.loss, "stderr": result.stderr, "closure": closure,
        "skewness": found.skewness, "partner_count": found.partner_count, "verdict": found.verdict,
    }  # fmt: skip


def laws(p: float) -> dict[str, float]:
    """Losses that need no training, for infinitely many features."""
    source = pr.SparseUniform(p)
    rug = pr.Rug.of_ratio(8192, RATIO)
    plain = {
        kind.name: pr.Autoencoder(rug, kind()).tune(source).limit(source)
        for kind in (pr.Linear, pr.ReLU, pr.Bayes, pr.OAMP)
    }
    pair, best = knots.pair(), knots.best(source, RATIO)
    return {
        "linear": plain["linear"],
        "rug": plain["relu"],
        "pair": pair.law(source, pair.noise(source, RATIO)),
        "best knot": best.law(source, best.noise(source, RATIO)),
        "Bayes on the rug": plain["bayes"],
        "OAMP on the rug": plain["oamp"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="draw what is there")
    path = DOCS / "trained.json"
    if not parser.parse_args().draw:
        rows = json.loads(path.read_text())["trained"] if path.exists() else []
        there = {(row["p"], row["n_sparse"]) for row in rows}
        for n in SIZES:
            for p in RATES:
                if (p, n) in there:
                    continue
                rows.append(trained(p, n))
                print(rows[-1], flush=True)
                write_whole(path, (json.dumps({"trained": rows}, indent=1) + "\n").encode())
    from persianrug.figures.trained import trained as draw

    rows = json.loads(path.read_text())["trained"]
    figure = draw(rows, {p: laws(p) for p in sorted(RATES)}, RATIO)
    figure.savefig(DOCS / "trained.png", dpi=130)


if __name__ == "__main__":
    main()
