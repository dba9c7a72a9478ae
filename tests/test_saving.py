"""Files that earlier versions wrote, in tests/data, and what `load` opens."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug.networks import Network, Training, train
from persianrug.sweeps import Sweep, rows, run_sweep
from tests.conftest import refused

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "expected.json").read_text())
MODELS = [name for name in EXPECTED if name.endswith(".safetensors") and name != "network.safetensors"]


@pytest.mark.parametrize("name", MODELS)
def test_models_of_before_read_codes_as_they_did(name):
    model = pr.load(DATA / name)
    assert isinstance(model, pr.Autoencoder)
    z = torch.linspace(-1, 1, model.encoder.n_dense, dtype=torch.float64)
    # Other machines round otherwise.
    assert model.decode(z[None])[0].numpy() == pytest.approx(np.array(EXPECTED[name]), rel=1e-9, abs=1e-12)


def test_networks_of_before_compute_what_they_did():
    network = pr.load(DATA / "network.safetensors")
    assert isinstance(network, Network)
    assert network.recipe["steps"] == 50
    found = network(torch.linspace(0, 1, 16)[None])[0].numpy()
    assert found == pytest.approx(np.array(EXPECTED["network.safetensors"]), rel=1e-5, abs=1e-6)


def test_trainings_of_before_are_gone_on_with(tmp_path):
    checkpoint = tmp_path / "training.checkpoint"
    shutil.copy(DATA / checkpoint.name, checkpoint)
    training = Training(8, 2, pr.SparseUniform(0.05), steps=20, batch=16)
    assert train(training, checkpoint=checkpoint).steps == 20
    with pytest.raises(ValueError, match="has steps 20; allowed with this training: steps 40"):
        train(Training(8, 2, pr.SparseUniform(0.05), steps=40, batch=16), checkpoint=checkpoint)


@pytest.mark.parametrize("name", ["codes-8-bits.rug", "codes-floats.rug"])
def test_codes_of_before_are_read(name):
    with pr.RugReader(DATA / name) as reader:
        assert len(reader) == reader.verify() == 120
        assert reader.plan["loss"] == EXPECTED[name]["loss"]
        row = np.asarray(reader.sketch.decode(reader[7:8]))[0]
        assert row == pytest.approx(np.array(EXPECTED[name]["row"]), rel=1e-4, abs=1e-6)
        assert reader.names[3] == "gene3"


def test_laws_of_before_are_profiles():
    with pytest.warns(DeprecationWarning, match="'persianrug laws' of .* is now 'persianrug profile'"):
        profile = pr.Profile.load(DATA / "laws.json")
    expected = EXPECTED["laws.json"]
    assert (profile.rows, profile.energy) == (expected["rows"], expected["energy"])
    assert profile.source.p.tolist() == expected["p"]
    assert profile.source.loc.tolist() == expected["loc"]


@pytest.mark.filterwarnings("ignore:format .persianrug laws.:DeprecationWarning")
def test_laws_of_before_on_the_command_line(run, tmp_path):
    shutil.copy(DATA / "laws.json", tmp_path)
    assert json.loads(run("plan", "laws.json", "--ratio", 0.5, "--json").stdout)["n_dense"] == 20
    rows = np.random.default_rng(0).random((9, 40)) * (np.random.default_rng(1).random((9, 40)) < 0.1)
    np.save(tmp_path / "rows.npy", rows)
    options = ("--ratio", 0.5, "--decoder", "bayes")
    result = run("compress", "rows.npy", "--laws", "laws.json", *options, "--out", "old.rug")
    assert result.returncode == 0
    assert "--laws is now called --profile" in result.stderr
    result = run("compress", "rows.npy", "--profile", "laws.json", *options, "--out", "new.rug")
    assert result.returncode == 0
    assert (tmp_path / "old.rug").read_bytes() == (tmp_path / "new.rug").read_bytes()
    both = ("--laws", "laws.json", "--profile", "laws.json")
    assert "--profile is laws.json; allowed with --laws" in refused(
        run("compress", "rows.npy", *both, *options, "--out", "t.rug")
    )


def test_old_names_of_profiles_work(tmp_path):
    fitter = pr.ProfileFitter(4)
    fitter.add(np.eye(4))
    with pytest.warns(DeprecationWarning, match=r"ProfileFitter\.laws is now ProfileFitter\.profile"):
        profile = fitter.laws()
    with pytest.warns(DeprecationWarning, match=r"Sketcher\.from_laws is now Sketcher\.from_profile"):
        sketcher = pr.Sketcher.from_laws(profile, n_dense=2, decoder="linear")
    with pytest.warns(DeprecationWarning, match=r"Sketcher\.laws_ is now Sketcher\.profile_"):
        assert sketcher.laws_ is sketcher.profile_ is profile


def test_stores_of_before_are_gone_on_with(tmp_path):
    store = tmp_path / "runs.sqlite"
    shutil.copy(DATA / store.name, store)
    sweep = Sweep((0.05, 0.1), (0.25,), (64,), ("relu", "bayes"), samples=64)
    before = rows(sweep, store)
    assert [row["state"] for row in before] == 4 * ["done"]
    # Nothing is run again, and what is found is the same.
    assert run_sweep(sweep, store) == {"done": 4, "failed": 0}
    assert rows(sweep, store) == before
    run_sweep(sweep, tmp_path / "again.sqlite")
    for old, new in zip(before, rows(sweep, tmp_path / "again.sqlite"), strict=True):
        assert (old["digest"] if "digest" in old else old["number"]) == (new.get("digest", new["number"]))
        assert new["predicted"] == pytest.approx(old["predicted"], rel=1e-9)
        assert new["measured"] == pytest.approx(old["measured"], rel=1e-4)


class TestLoad:
    def test_opens_what_train_and_solve_wrote(self, run, tmp_path):
        training = ("--n-sparse", 16, "--steps", 5, "--batch", 16)
        assert run("train", *training, "--out", "network.safetensors").returncode == 0
        network = pr.load(tmp_path / "network.safetensors")
        assert isinstance(network, Network)
        assert (network.n_sparse, network.n_dense) == (16, 4)
        saving = ("--n-sparse", 16, "--decoders", "relu", "--save", "model.safetensors")
        assert run("solve", "--p", 0.1, "--ratio", 0.5, *saving).returncode == 0
        model = pr.load(tmp_path / "model.safetensors")
        assert (model.encoder, model.decoder.name) == (pr.Rug(16, 8), "relu")

    def test_says_what_a_file_is_not(self, tmp_path):
        with pytest.raises(ValueError, match=r"model file .* is missing; allowed: a file written by save"):
            pr.load(tmp_path / "none.safetensors")
        (tmp_path / "t.safetensors").write_bytes(b"{}")
        with pytest.raises(ValueError, match=r"model file .* cannot be read"):
            pr.load(tmp_path / "t.safetensors")
        with pytest.raises(ValueError, match=r"has format persianrug\.checkpoint, version 1; allowed"):
            pr.load(DATA / "training.checkpoint")

    def test_of_a_particular_kind_refuses_the_other(self):
        with pytest.raises(ValueError, match=r"has format persianrug\.network, version 1; allowed"):
            pr.Autoencoder.load(DATA / "network.safetensors")
        with pytest.raises(ValueError, match=r"has format persianrug\.autoencoder, version 2; allowed"):
            Network.load(DATA / "rug-relu.safetensors")
