"""Gradients of two workers sent in fewer bytes, on a real training: `python -m benchmarks.ddp`.

An MLP on scikit-learn's digits, trained by two processes with half of the training set each, over gloo on this
machine. Bytes are those of the tensors that a process gives to `all_reduce`, dense steps included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from persianrug.integrations.ddp import SketchState, sketch_hook

WORKERS = 2
BATCH = 32

# Some 28 epochs. The rate goes to 0 in the end, so that no method seems worse for the noise of its last step; and
# weights decay, so that the training loss ends at 1e-2, where a part of it means something, not ever nearer to 0.
STEPS = 600
RATES = {"sgd": 0.1, "adamw": 1e-3}
DECAYS = {"sgd": 1e-3, "adamw": 1e-2}

Hook = Callable[[Any, Any], torch.futures.Future[torch.Tensor]]


def power_sgd(rank: int, start: int) -> tuple[Any, Hook]:
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=start)
    return state, powerSGD_hook.powerSGD_hook


# Ranks are those that send most within a quarter and an eighth of the bytes; dense steps are at least two, and a
# tenth of all is what PyTorch's documentation advises.
METHODS: dict[str, Callable[[], tuple[Any, Hook]]] = {
    "uncompressed": lambda: (None, default_hooks.allreduce_hook),
    "fp16": lambda: (None, default_hooks.fp16_compress_hook),
    "PowerSGD, rank 21": lambda: power_sgd(21, 2),
    "PowerSGD, rank 13 after 60 dense steps": lambda: power_sgd(13, STEPS // 10),
    "sketch, ratio 0.25": lambda: (SketchState(None, ratio=0.25, seed=0), sketch_hook),
    "PowerSGD, rank 9": lambda: power_sgd(9, 2),
    "sketch, ratio 0.125": lambda: (SketchState(None, ratio=0.125, seed=0), sketch_hook),
}


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and held-out images, and their labels: 1347 and 450."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16 - 0.3, labels, test_size=0.25, stratify=labels, random_state=0)
    x, x_test, y, y_test = map(torch.from_numpy, parts)
    return x.float(), x_test.float(), y, y_test


def network(seed: int) -> torch.nn.Sequential:
    """85,002 parameters."""
    torch.manual_seed(seed)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(linear(64, 256), relu(), linear(256, 256), relu(), linear(256, 10))


def train(rank: int, seed: int, state: Any, hook: Hook, kind: str) -> tuple[list[float], list[float]]:
    """Train on this worker's half; the losses and the accuracy in the end, and the seconds of every step."""
    x, x_test, y, y_test = digits()
    net = network(seed)
    model = DistributedDataParallel(net)
    model.register_comm_hook(state, hook)
    rate, decay = RATES[kind], DECAYS[kind]
    optimizer: torch.optim.Optimizer
    if kind == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=STEPS + 1, pct_start=0.1, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(WORKERS * seed + rank)
    own = torch.arange(rank, len(x), WORKERS)
    # Workers have as many batches an epoch, whoever has the odd image.
    batches: list[torch.Tensor] = []
    seconds = []
    for _ in range(STEPS):
        if not batches:
            order = own[torch.randperm(len(own), generator=generator)]
            batches = list(order[: len(own) // BATCH * BATCH].split(BATCH))
        batch = batches.pop()
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        schedule.step()
    with torch.no_grad():
        logits = net(x_test)
        losses = [float(F.cross_entropy(net(x), y)), float(F.cross_entropy(logits, y_test))]
    return [*losses, float((logits.argmax(1) == y_test).double().mean())], seconds


def work(rank: int, folder: str, seeds: int, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS)
    sent = 0
    plain = dist.all_reduce

    def counted(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return plain(tensor, *arguments, **options)

    dist.all_reduce = counted  # type: ignore[assignment]
    rows: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, make in METHODS.items():
            sent = 0
            state, hook = make()
            result, seconds = train(rank, seed, state, hook, kind)
            rows[name].append([sent, *result, statistics.median(seconds)])
            if isinstance(state, SketchState) and state.bytes_sent != sent:
                raise AssertionError(f"{name} counts {state.bytes_sent} bytes where {sent} were sent")
    if rank == 0:
        np.savez(Path(folder, "rows.npz"), **rows)  # type: ignore[arg-type]
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each method")
    parser.add_argument("--optimizer", choices=RATES, default="sgd")
    arguments = parser.parse_args()
    seeds, kind = arguments.seeds, arguments.optimizer
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (folder, seeds, kind), nprocs=WORKERS)
        rows = {name: np.array(row) for name, row in np.load(Path(folder, "rows.npz")).items()}
    base = rows["uncompressed"]
    print(f"Digits, MLP of 85,002 parameters, {WORKERS} workers, {STEPS} steps of {kind}, mean of {seeds} seeds")
    print("  bytes, losses and time a step over uncompressed; losses with the standard error of their difference")
    for name, row in rows.items():
        shown = []
        for kind, column in (("train", 1), ("test", 2)):
            more = (row - base)[:, column] / base[:, column].mean()
            error = more.std(ddof=1) / seeds**0.5
            shown.append(f"{kind} loss {row[:, column].mean():.5f} ({more.mean():+.1%} ± {error:.1%})")
        print(
            f"  {name:38} bytes {row[:, 0].mean() / base[:, 0].mean():.4f}  {shown[0]}  {shown[1]}  "
            f"accuracy {row[:, 3].mean():.4f}  time {np.median(row[:, 4]) / np.median(base[:, 4]):.1f}"
        )


if __name__ == "__main__":
    main()
