"""One page that holds all figures, the claims, and how they were made."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from persianrug.sweeps.sweep import TRAINED

if TYPE_CHECKING:
    from persianrug.paper.claims import Claim
    from persianrug.paper.data import Data
    from persianrug.paper.pictures import Figure

_LIBRARIES = ("persianrug", "torch", "numpy", "scipy", "matplotlib")


def page(
    data: Data, figures: dict[str, Figure], found: Sequence[Claim], pictures: dict[str, bytes], seconds: float
) -> bytes:
    """The page as HTML, which needs no other file.

    Parameters
    ----------
    data : Data
        The runs.
    figures : dict
        What they are called and show, by name.
    found : sequence of Claim
    pictures : dict
        The figures by name, as PNG.
    seconds : float
        How long it took to make, without what was there before.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(files("persianrug.paper").joinpath("report.html").read_text("utf-8"))
    made = []
    for name, sweep in data.sweeps.items():
        spent = sum(row["seconds"] for row in data[name])
        trained = any(method in TRAINED for method in sweep.method)
        made.append({
            "name": name, "methods": ", ".join(sweep.method), "sizes": ", ".join(map(str, sweep.n_sparse)),
            "steps": ", ".join(map(str, sweep.steps)) if trained else "", "seeds": ", ".join(map(str, sweep.seed)),
            "runs": len(sweep), "seconds": _spoken(spent),
        })  # fmt: skip
    text = template.render(
        plan=data.plan,
        claims=found,
        yes=sum(claim.agrees == "yes" for claim in found),
        figures=figures,
        pictures={name: base64.b64encode(content).decode() for name, content in pictures.items()},
        runs=sum(len(sweep) for sweep in data.sweeps.values()),
        busy=_spoken(sum(row["seconds"] for row in data.every)),
        took=_spoken(seconds),
        cores=os.cpu_count(),
        failed=data.failed,
        sweeps=made,
        versions={**{name: version(name) for name in _LIBRARIES}, "Python": platform.python_version()},
    )
    return text.encode()


def _spoken(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
