"""Small sweeps, and batches of runs that nobody makes."""

from persianrug.sweeps.store import Outcome

SMALL = {"p": (0.05, 0.2), "ratio": (0.25,), "n_sparse": (64,)}
TRAINED = {"method": ("sampled",), "steps": (30,), "batch": 32}


def asked(*numbers):
    return [{"number": number, "method": f"é{number}"} for number in numbers]


def batches(sizes):
    """Batches of so many runs, numbered in order."""
    numbers = iter(range(sum(sizes)))
    return [asked(*(next(numbers) for _ in range(size))) for size in sizes]


def done(batch, **result):
    return {run: Outcome({"measured": 1.0, **result}) for run in batch.asked}


def numbers(batch):
    return [asked["number"] for asked in batch.asked.values()]
