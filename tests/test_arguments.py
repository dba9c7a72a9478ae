"""Arguments that many take, seeds and devices: one range, and one message of what is allowed."""

import copy
import os
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import persianrug as pr
from persianrug._support import checks
from persianrug.decoders import DECODERS
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
NETWORK_TRAINED = pr.networks.train(NETWORK).network


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


@pytest.mark.parametrize("device", [10**400, "x" * 10_000, "meta", 1.5, None])
def test_devices_of_another_kind_are_short_lines(device):
    with pytest.raises(ValueError, match=r"^device is .*; allowed here: cpu") as caught:
        MODEL.measure(SOURCE, samples=4, device=device)
    assert len(str(caught.value)) < 200


def test_devices_that_are_none():
    for device in ("nowhere", "cpu:x", 0.5, [1]):
        with pytest.raises(ValueError, match=re.escape(f"device is {device!r}; allowed here: cpu")):
            MODEL.measure(SOURCE, samples=2, device=device)


def test_generators_of_other_devices_are_refused():
    message = re.escape("seed is a generator on cpu; allowed: one on meta, or an integer")
    with pytest.raises(ValueError, match=message):
        pr.Channel(noise=0.1).transmit(torch.zeros(2, 8, device="meta"), seed=torch.Generator())


PATHS = {
    "load": pr.load,
    "Profile.load": pr.Profile.load,
    "Profile.save": lambda path: profile().save(path),
    "from_profile": pr.Sketcher.from_profile,
    "Autoencoder.load": pr.Autoencoder.load,
    "Autoencoder.save": MODEL.save,
    "Network.load": pr.networks.Network.load,
    "Network.save": lambda path: NETWORK_TRAINED.save(path),
    "checkpoint": lambda path: pr.networks.train(NETWORK, checkpoint=path),
    "read_weights": pr.networks.read_weights,
    "read_rows": pr.read_rows,
    "open_rows": pr.sketches.open_rows,
    "open_rows layer": lambda path: pr.sketches.open_rows(path, layer="x"),
    "RowWriter": lambda path: pr.sketches.RowWriter(path, 16, "<f4"),
    "RugReader": pr.RugReader,
    "RugWriter": lambda path: pr.RugWriter(path, SKETCH),
    "RugWriter.append": pr.RugWriter.append,
    "Sweep.read": Sweep.read,
    "Store": pr.sweeps.Store,
    "Store reading": lambda path: pr.sweeps.Store(path, reading=True),
    "run_sweep": lambda path: pr.sweeps.run_sweep(Sweep(p=0.1, ratio=0.5), path),
    "run_sweep weights": lambda path: pr.sweeps.run_sweep(Sweep(p=0.1, ratio=0.5), "store.db", weights=path),
    "export": lambda path: pr.sweeps.export("store.db", path),
    "reproduce": lambda path: pr.paper.reproduce(pr.paper.PLANS["quick"], path),
}


class Bytes(os.PathLike):
    def __fspath__(self):
        return b"x.npy"


NO_PATHS = ["x" * 100_000, "x" * 300 + ".npy", "a\0b.npy", "\ud800.npy", "loop.npy", b"x.npy", Bytes(), 3]


@pytest.mark.parametrize("taker", PATHS)
def test_what_is_no_path_is_refused(taker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    for path in NO_PATHS:
        with pytest.raises(ValueError, match=r"^\w+ is .*; allowed: ") as caught:
            PATHS[taker](path)
        assert len(str(caught.value)) < 250
    with (tmp_path / "x.npy").open("wb") as file:
        if taker != "RugWriter":
            with pytest.raises(ValueError, match=r"^\w+ is a BufferedWriter; allowed: "):
                PATHS[taker](file)
    assert {path.name for path in tmp_path.iterdir()} == {"loop.npy", "x.npy"}


def test_names_as_long_as_can_be_are_written(tmp_path):
    path = tmp_path / ("é" * 123 + "x.safetensors"[-9:])
    MODEL.save(path)
    assert pr.load(path) == MODEL


PROFILE, KNOT, IDENTITY = profile(), pr.knots.pair(), np.eye(16)

# What takes an object of the package, by the name that messages have for it, and its class.
TAKERS = {
    ("source", "a Source"): {
        "tune": MODEL.tune,
        "law": MODEL.law,
        "limit": MODEL.limit,
        "laws": MODEL.laws,
        "recovery_threshold": pr.recovery_threshold,
        "encoder_gains": lambda x: pr.encoder_gains(x, RUG, pr.ReLU()),
        "best": lambda x: pr.knots.best(x, 0.5),
        "Knot.law": lambda x: KNOT.law(x, 0.1),
        "Knot.noise": lambda x: KNOT.noise(x, 0.5),
        "Knot.views": lambda x: KNOT.views(x, 0.1),
        "channel_variance": KNOT.channel_variance,
        "channel_noise": lambda x: pr.KnottedRug.weave(KNOT, 16, 8).channel_noise(x, pr.Channel()),
        "Training": lambda x: pr.networks.Training(16, 8, x),
        "Network.measure": lambda x: NETWORK_TRAINED.measure(x, samples=2),
        "Network.autoencoder": NETWORK_TRAINED.autoencoder,
        "measure_symmetry": lambda x: pr.measure_symmetry(IDENTITY, IDENTITY, source=x),
        "Sketch": lambda x: pr.Sketch(x, RUG),
        "Covariance.of": lambda x: pr.Covariance.of(x, 16),
        "Bayes": pr.Bayes,
        "OAMP": pr.OAMP,
        "state_evolution": lambda x: pr.OAMP().state_evolution(x, RUG),
        "fixed_points": lambda x: pr.figures.phase.fixed_points(x, np.array([0.5])),
        **{
            f"{name}.{method}": lambda x, kind=kind, method=method: getattr(kind(), method)(x, RUG)
            for name, kind in DECODERS.items()
            for method in ("adapt", "limit", "law")
        },
        **{
            f"{name}.{method}": lambda x, kind=kind, method=method: getattr(kind(), method)(x, 0.1)
            for name, kind in DECODERS.items()
            for method in ("tune", "risk")
            if hasattr(kind, method)
        },
    },
    ("encoder", "an Encoder"): {
        "Autoencoder": lambda x: pr.Autoencoder(x, pr.ReLU()),
        "encoder_gains": lambda x: pr.encoder_gains(SOURCE, x, pr.ReLU()),
        "Codes": lambda x: pr.Codes(np.zeros((2, 8)), x),
        "law_of": lambda x: pr.LMMSE().law_of(pr.Covariance.of(SOURCE, 16), x),
        **{
            f"{name}.{method}": lambda x, kind=kind, method=method: getattr(kind(), method)(SOURCE, x)
            for name, kind in DECODERS.items()
            for method in ("adapt", "limit", "law")
        },
    },
    ("decoder", "a Decoder"): {"Autoencoder": lambda x: pr.Autoencoder(RUG, x)},
    ("channel", "a Channel"): {
        "Autoencoder": lambda x: pr.Autoencoder(RUG, pr.ReLU(), channel=x),
        "encoder_gains": lambda x: pr.encoder_gains(SOURCE, RUG, pr.ReLU(), channel=x),
        "best": lambda x: pr.knots.best(SOURCE, 0.5, x),
        "Knot.noise": lambda x: KNOT.noise(SOURCE, 0.5, x),
        **{
            f"{name}.{method}": lambda x, kind=kind, method=method: getattr(kind(), method)(SOURCE, RUG, x)
            for name, kind in DECODERS.items()
            for method in ("adapt", "limit", "law")
        },
    },
    ("rug", "a Rug"): {"Sketch": lambda x: pr.Sketch(SOURCE, x)},
    ("mixture", "a Mixture"): {"Codes": lambda x: pr.Codes(np.zeros((2, 8)), RUG, x)},
    ("knot", "a Knot"): {"weave": lambda x: pr.KnottedRug.weave(x, 16, 8)},
    ("profile", "a Profile"): {"make_plan": lambda x: pr.make_plan(x, ratio=0.5)},
    ("sketch", "a Sketch"): {
        "losses": lambda x: pr.sketches.losses(x, ROWS),
        "RugWriter": lambda x: pr.RugWriter("none.rug", x),
    },
}  # fmt: skip
OBJECTS = {"None": None, "number": 3, "text": "uniform", "dict": {"p": 0.1}, "class": pr.SparseUniform,
           "array": ROWS, "long list": [0.5] * 2000}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "allowed", "taker"), [(*key, taker) for key, takers in TAKERS.items() for taker in takers]
)
def test_objects_of_another_kind_are_refused_by_name(name, allowed, taker):
    for value in OBJECTS.values():
        with pytest.raises(ValueError, match=re.escape(f"{name} is {checks.shown(value)}; allowed: {allowed}")):
            TAKERS[name, allowed][taker](value)


@pytest.mark.parametrize("measure", [MODEL.measure, OAMP.trace])
def test_data_of_another_kind_is_refused(measure):
    for value in (None, 3, "uniform", {"p": 0.1}, pr.SparseUniform, [0.5] * 2000):
        with pytest.raises(ValueError, match=r"^data is a \w+; allowed: a source, a tensor"):
            measure(value)


SKETCHER = pr.Sketcher(0.5, decoder="linear").fit(ROWS)
NOT_ROWS = {
    "None": lambda n: None,
    "number": lambda n: 3,
    "text": lambda n: "x" * 100_000,
    "bytes": lambda n: b"abc",
    "dict": lambda n: {"a": 1},
    "set": lambda n: {1, 2},
    "slice": lambda n: slice(3),
    "class": lambda n: np.ndarray,
    "objects": lambda n: [[object()] * n] * 3,
    "array of objects": lambda n: np.array([[object()] * n] * 3),
    "frame of objects": lambda n: pd.DataFrame([[object()] * n] * 3),
    "frame of texts": lambda n: pd.DataFrame([["a"] * n] * 3),
    "frame of complex numbers": lambda n: pd.DataFrame(np.zeros((3, n), complex)),
    "list of dicts": lambda n: [{}] * 3,
    "ragged list": lambda n: [[1], [2, 3]],
    "texts": lambda n: [["1"] * n] * 3,
    "integers beyond floats": lambda n: [[10**400] + [0] * (n - 1)] * 3,
    "None in lists": lambda n: [[None] * n] * 3,
    "no rows": lambda n: np.zeros((0, n)),
    "no rows, sparse": lambda n: scipy.sparse.csr_array((0, n)),
    "empty list": lambda n: [],
    "a vector": lambda n: np.zeros(n),
    "three axes": lambda n: np.zeros((2, 2, n)),
    "too wide": lambda n: np.zeros((2, n + 1)),
    "dates": lambda n: np.zeros((3, n), "M8[s]"),
    "structured": lambda n: np.zeros((3, n), dtype=[("a", "f8")]),
    "nested tensor": lambda n: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "sparse tensor": lambda n: torch.zeros(3, n).to_sparse(),
    "without content": lambda n: torch.zeros(3, n, device="meta"),
    "quantised": lambda n: torch.quantize_per_tensor(torch.zeros(3, n), 0.1, 0, torch.qint8),
    "complex": lambda n: torch.zeros(3, n, dtype=torch.complex64),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["fit", "partial_fit", "encode", "transform", "inverse_transform"])
@pytest.mark.parametrize("kind", NOT_ROWS)
def test_what_are_no_rows_is_refused(kind, method):
    if (kind, method) == ("too wide", "fit"):
        return
    if method == "inverse_transform" and kind.startswith("no rows"):
        return
    sketcher = pr.Sketcher() if method == "fit" else copy.deepcopy(SKETCHER)
    with pytest.raises(ValueError, match="; allowed: ") as caught:
        getattr(sketcher, method)(NOT_ROWS[kind](8 if method == "inverse_transform" else 16))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_what_is_refused_is_not_learned_from_in_part(kind, monkeypatch):
    monkeypatch.setattr("persianrug.sketches.estimator.BLOCK", 16)
    wrong = ROWS.astype(np.float64)
    wrong[-1, 0] = 1e31
    sketcher = copy.deepcopy(SKETCHER)
    with pytest.raises(ValueError, match="X holds sizes up to 1e"):
        sketcher.partial_fit(wrong if kind == "array" else scipy.sparse.csr_array(wrong))
    assert sketcher.partial_fit(ROWS).profile_ == copy.deepcopy(SKETCHER).partial_fit(ROWS).profile_
