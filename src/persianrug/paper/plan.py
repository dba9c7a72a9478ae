"""How large a reproduction is, and which runs it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from persianrug.sweeps.sweep import Sweep, span

# The paper's: its curves, its plane, its rug, and the network whose weights it shows.
_CURVE_P = (0.001, 0.01, 0.05, 0.1, 0.4, 0.6)
_CURVE_RATIOS = (0.01, 0.1, 0.3, 0.5, 0.8)
_LEAST, _MOST = 0.002, 0.8
RUG = 8192
SHOWN_P, SHOWN_RATIO = 0.045, 0.25
# Where networks of many sizes are trained for many steps.
_BUDGET_POINTS = ((0.01, 0.25), (0.045, 0.25), (0.3, 0.5))
BUDGETS = tuple(f"budget-{kind}{k}" for kind in ("", "knot-") for k in range(len(_BUDGET_POINTS)))
# Where the laws of rare features are cut and measured.
CUT_RATIO = 0.25
_RARE_N = 1 << 20


@dataclass(frozen=True)
class Plan:
    """How large a reproduction is.

    Attributes
    ----------
    name : str
    sizes : tuple of int
        n_sparse of the networks that are trained over the plane.
    curve_sizes : tuple of int
        And along the curves.
    side : int
        Points of the plane on each side.
    curve_points, rug_points : int
        Of every curve of trained networks and best knots, and of rugs.
    steps, batch : int
        Of every training but those of the budget, and of the network that is shown.
    budget_sizes, budget_steps, budget_seeds : tuple of int
        Sizes, steps and seeds that are compared.
    shown_n, shown_steps : int
        The network whose weights are shown.
    recovery_side, recovery_n, recovery_samples : int
        Points of OAMP's phase diagram on each side, features, and vectors a point.
    """

    name: str
    sizes: tuple[int, ...]
    curve_sizes: tuple[int, ...]
    side: int
    curve_points: int
    rug_points: int
    steps: int
    batch: int
    budget_sizes: tuple[int, ...]
    budget_steps: tuple[int, ...]
    budget_seeds: tuple[int, ...]
    shown_n: int
    shown_steps: int
    recovery_side: int
    recovery_n: int
    recovery_samples: int


PLANS = {
    "quick": Plan(
        "quick", sizes=(64, 128, 256), curve_sizes=(64, 256), side=6, curve_points=5, rug_points=10,
        steps=1000, batch=512,
        budget_sizes=(32, 64, 128, 256), budget_steps=(250, 1000, 4000), budget_seeds=(0,),
        shown_n=256, shown_steps=2000, recovery_side=12, recovery_n=1024, recovery_samples=32,
    ),
    "full": Plan(
        "full", sizes=(128, 1024, 8192), curve_sizes=(128, 1024, 8192), side=20, curve_points=8, rug_points=20,
        steps=2000, batch=1024,
        budget_sizes=(64, 256, 1024, 4096), budget_steps=(500, 2000, 8000), budget_seeds=(0, 1, 2),
        shown_n=512, shown_steps=4000, recovery_side=24, recovery_n=8192, recovery_samples=64,
    ),
}  # fmt: skip
"""What can be asked for, by name; `full` has the sizes and the grid of the paper."""


def sweeps(plan: Plan) -> dict[str, Sweep]:
    """The runs of a plan, by what they are for."""
    plane = span("plane", **{"from": _LEAST, "to": _MOST, "points": plan.side})
    curve = span("curve", **{"from": 0.02, "to": _MOST, "points": plan.curve_points, "scale": "log"})
    fine = span("fine", **{"from": _LEAST, "to": _MOST, "points": plan.rug_points, "scale": "log"})
    phase = span("phase", **{"from": 0.006, "to": 0.8, "points": plan.recovery_side, "scale": "log"})
    trained: dict[str, Any] = {"method": ("sampled",), "steps": (plan.steps,), "batch": plan.batch}
    rugs: dict[str, Any] = {"n_sparse": (RUG,), "samples": 1024}
    knots = {**rugs, "method": ("knot",)}
    found = {
        "plane": Sweep(plane, plane, plan.sizes, **trained),
        "shown": Sweep(
            (SHOWN_P,), (SHOWN_RATIO,), (plan.shown_n,), ("sampled",), steps=(plan.shown_steps,), batch=1024
        ),
        **{
            f"budget-{k}": Sweep(
                (p,), (ratio,), plan.budget_sizes, ("sampled",), seed=plan.budget_seeds, steps=plan.budget_steps,
                batch=plan.batch,
            )
            for k, (p, ratio) in enumerate(_BUDGET_POINTS)
        },
        **{
            f"budget-knot-{k}": Sweep((p,), (ratio,), **knots)
            for k, (p, ratio) in enumerate(_BUDGET_POINTS)
        },
        "ratio-trained": Sweep(_CURVE_P, curve, plan.curve_sizes, **trained),
        "p-trained": Sweep(curve, _CURVE_RATIOS, plan.curve_sizes, **trained),
        "ratio-rug": Sweep(_CURVE_P, fine, **rugs),
        "p-rug": Sweep(fine, _CURVE_RATIOS, **rugs),
        "ratio-knot": Sweep(_CURVE_P, curve, **knots),
        "p-knot": Sweep(curve, _CURVE_RATIOS, **knots),
        "plane-rug": Sweep(plane, plane, (RUG,), ("relu",), samples=256),
        "rare": Sweep((1e-4, 1e-3, 1e-2, 1e-1), (CUT_RATIO,), (_RARE_N,), samples=32),
        "ladder": Sweep(
            (0.005, 0.01, 0.03, 0.1, 0.3, 0.6), (CUT_RATIO,), (RUG,),
            ("linear", "relu", "jumprelu", "prolu", "bayes"), samples=2048,
        ),
        "recovery": Sweep(phase, phase, (plan.recovery_n,), ("oamp",), samples=plan.recovery_samples),
    }  # fmt: skip
    return {name: Sweep(**{**sweep.recipe, "name": f"{plan.name}-{name}"}) for name, sweep in found.items()}
