"""Arguments that many take, seeds and devices: one range, and one message of what is allowed."""

import re

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.integrations.ddp import SketchState
from persianrug.sweeps.sweep import Sweep

MOST = 2**63 - 1
SOURCE = pr.SparseUniform(0.1)
ROWS = SOURCE.sample(64, 16, seed=0).numpy()
RUG = pr.Rug(16, 8)
MODEL = pr.Autoencoder(RUG, pr.ReLU(), channel=pr.Channel(noise=0.1)).tune(SOURCE)
OAMP = pr.Autoencoder(RUG, pr.OAMP()).tune(SOURCE)
SKETCH = pr.Sketch(pr.SparseUniform(np.full(16, 0.1)), RUG, decoder="relu")
NETWORK = pr.networks.Training(16, 8, SOURCE, steps=1, batch=4)


def profile():
    fitter = pr.ProfileFitter(16)
    fitter.add(ROWS)
    return fitter.profile()


SEEDED = {
    "Rug": lambda seed: pr.Rug(16, 8, seed),
    "Rug.of_ratio": lambda seed: pr.Rug.of_ratio(16, 0.5, seed),
    "KnottedRug": lambda seed: pr.KnottedRug.weave(pr.knots.pair(), 16, 8, seed),
    "Gaussian": lambda seed: pr.Gaussian(16, 8, seed),
    "sample": lambda seed: SOURCE.sample(2, 16, seed=seed),
    "measure": lambda seed: MODEL.measure(SOURCE, samples=2, seed=seed),
    "trace": lambda seed: OAMP.trace(SOURCE, samples=2, seed=seed),
    "transmit": lambda seed: MODEL.transmit(torch.zeros(2, 8), seed),
    "Training": lambda seed: pr.networks.Training(16, 8, SOURCE, seed),
    "train": lambda seed: pr.networks.train(pr.networks.Training(16, 8, SOURCE, seed, steps=1, batch=4)),
    "Network.measure": lambda seed: pr.networks.train(NETWORK).network.measure(SOURCE, samples=2, seed=seed),
    "search": lambda seed: pr.networks.search(0.1, 0.5, budget=0.01, seed=seed),
    "measure_symmetry": lambda seed: pr.networks.measure_symmetry(
        np.eye(4), np.eye(4), np.zeros(4), SOURCE, samples=64, seed=seed
    ),
    "ProfileFitter": lambda seed: pr.ProfileFitter(16, seed),
    "plan": lambda seed: pr.make_plan(profile(), ratio=0.5, seed=seed),
    "laws_on": lambda seed: SKETCH.laws_on(ROWS, seed),
    "law_on": lambda seed: SKETCH.law_on(ROWS, seed),
    "erase": lambda seed: SKETCH.encode(ROWS).erase(0.5, seed),
    "Sketcher": lambda seed: pr.Sketcher(0.5, seed=seed).fit(ROWS),
    "SketchState": lambda seed: SketchState(seed=seed),
    "Sweep": lambda seed: Sweep(p=0.1, ratio=0.5, seed=seed),
}


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_have_one_range(name):
    for seed, said in ((-1, "-1"), (MOST + 1, str(MOST + 1)), (2**200, str(2**200)), (0.5, "0.5"), ("x", "'x'")):
        with pytest.raises(ValueError, match=re.escape(f"seed is {said}; allowed: an integer from 0 to {MOST}")):
            SEEDED[name](seed)
    SEEDED[name](MOST)


PLACED = {
    "measure": lambda device: MODEL.measure(SOURCE, samples=2, device=device),
    "trace": lambda device: OAMP.trace(SOURCE, samples=2, device=device),
    "sample": lambda device: SOURCE.sample(2, 16, device=device),
    "sample by a seed": lambda device: SOURCE.sample(2, 16, seed=0, device=device),
    "train": lambda device: pr.networks.train(NETWORK, device=device),
    "train_many": lambda device: pr.networks.train_many([NETWORK], device=device),
}


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("kind", [str, torch.device])
def test_devices_that_are_not_here(name, kind):
    # One more than there are, if there are any.
    for device in (f"cuda:{torch.cuda.device_count()}", "meta"):
        with pytest.raises(ValueError, match=re.escape(f"device is {device!r}; allowed here: cpu")):
            PLACED[name](kind(device))
    PLACED[name](kind("cpu"))


def test_devices_that_are_none():
    for device in ("nowhere", "cpu:x", 0.5, [1]):
        with pytest.raises(ValueError, match=re.escape(f"device is {device!r}; allowed here: cpu")):
            MODEL.measure(SOURCE, samples=2, device=device)


def test_generators_of_other_devices_are_refused():
    message = re.escape("seed is a generator on cpu; allowed: one on meta, or an integer")
    with pytest.raises(ValueError, match=message):
        pr.Channel(noise=0.1).transmit(torch.zeros(2, 8, device="meta"), seed=torch.Generator())


@pytest.mark.parametrize("load", [pr.load, pr.Profile.load, pr.Autoencoder.load, pr.read_rows, MODEL.save])
def test_open_files_are_no_paths(load, tmp_path):
    with (
        (tmp_path / "x.npy").open("wb") as file,
        pytest.raises(ValueError, match="path is a BufferedWriter; allowed"),
    ):
        load(file)
