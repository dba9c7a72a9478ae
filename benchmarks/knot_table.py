"""Search for the best knots over a grid of (p, ratio), and keep what is better than what ships.

`python -m benchmarks.knot_table --budget 70` takes that many seconds for each of the 40 points, and writes
src/persianrug/knots/data/knots.json after every one. Knots found at other p of the same ratio are candidates too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import persianrug as pr
from persianrug import knots
from persianrug._support.files import write_whole
from persianrug.knots import Found
from persianrug.networks.knot_search import search

TABLE = Path(knots.__file__).parent / "data" / "knots.json"
RATES = (0.005, 0.01, 0.02, 0.045, 0.1, 0.2, 0.3, 0.5)
RATIOS = (0.05, 0.1, 0.25, 0.5, 0.75)


def best_of(p: float, ratio: float, found: list[Found]) -> Found:
    """The best knot at (p, ratio) among those found anywhere at that ratio, and those by name."""
    source = pr.SparseUniform(p)
    rug = knots.single().law(source, knots.single().noise(source, ratio))
    hows = [(one.knot, one.how) for one in found if one.ratio == ratio]
    hows += [(knot, "by name") for knot in knots.named().values() if knot.fits(ratio)]
    laws = [(knot.law(source, knot.noise(source, ratio)), knot, how) for knot, how in hows]
    loss, knot, how = min(laws, key=lambda one: one[0])
    if loss >= rug * (1 - 1e-6):
        loss, knot, how = rug, knots.single(), "the plain rug"
    return Found(knot, p, ratio, loss, rug, how)


def write(found: list[Found]) -> None:
    """One line a knot, whose numbers keep nine digits."""
    recipes = [one.recipe() for one in sorted(found, key=lambda one: (one.ratio, one.p))]
    for recipe in recipes:
        for part in ("matrix", "readout"):
            recipe[part] = [[float(f"{value:.9g}") for value in row] for row in recipe[part]]
        for part in ("gain", "bias"):
            recipe[part] = [float(f"{value:.6g}") for value in recipe[part]]
    lines = ",\n".join(json.dumps(recipe) for recipe in recipes)
    write_whole(TABLE, f'{{"knots": [\n{lines}\n]}}\n'.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=70.0, help="seconds for every point of the grid")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = knots.library()
    for ratio in RATIOS:
        for p in RATES:
            new = search(p, ratio, budget=options.budget, seed=options.seed)
            knots.library.cache_clear()
            found = [*knots.library(), new]
            table = {(one.p, one.ratio): one for one in found[:-1]}
            table[p, ratio] = best_of(p, ratio, found)
            write(list(table.values()))
            print(
                f"{p} {ratio} {table[p, ratio].knot}: {table[p, ratio].loss / table[p, ratio].rug:.4f} of the rug"
            )
    knots.library.cache_clear()
    found = knots.library()
    write([best_of(one.p, one.ratio, found) for one in found])


if __name__ == "__main__":
    main()
