"""train, symmetry, knots, and solve on knots, as processes."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug import knots
from persianrug.networks.network import Network
from tests.conftest import COMMAND, ENDED, refused

SMALL = ("--n-sparse", 48, "--ratio", 0.25, "--p", 0.1, "--batch", 128)


def train_until(tmp_path, environment, steps, *options, ended_by):
    """Start to train, and end it by a signal once there is a checkpoint."""
    command = [*COMMAND, "train", *SMALL, "--steps", steps, "--out", "n.safetensors", *options]
    process = subprocess.Popen(
        list(map(str, command)), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    checkpoint = tmp_path / "n.safetensors.checkpoint"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(ended_by)
    out, err = process.communicate(timeout=60)
    assert checkpoint.exists()
    assert not (tmp_path / "n.safetensors").exists()
    return process.returncode, out, err.decode()


class TestTrain:
    def test_reports_and_saves(self, run, tmp_path):
        result = run("train", *SMALL, "--steps", 400, "--out", "n.safetensors", "--json")
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert list(report) == ["loss", "stderr", "law", "seconds", "steps"]
        source = pr.SparseUniform(0.1)
        rug = pr.Rug.of_ratio(48, 0.25)
        assert report["law"] == pytest.approx(pr.Autoencoder(rug, pr.ReLU()).tune(source).law(source))
        assert report["loss"] < 0.9 * pr.Autoencoder(rug, pr.Linear()).tune(source).law(source)
        assert report["steps"] == 400
        network = Network.load(tmp_path / "n.safetensors")
        loss, stderr = network.measure(source, seed=9)
        assert abs(loss - report["loss"]) < 5 * np.hypot(stderr, report["stderr"])
        assert [file.name for file in tmp_path.iterdir()] == ["n.safetensors"]

    def test_closure_reaches_the_law_of_the_rug(self, run):
        options = ("--method", "closure", "--n-sparse", 64, "--steps", 600, "--seed", 3)
        result = run("train", *options, "--out", "n.safetensors")
        assert result.returncode == 0, result.stderr
        assert "relu law of a rug of this size" in result.stdout
        assert "Network(n_sparse=64, n_dense=16, activation='relu'), 600 steps" in result.stdout

    def test_a_law_of_0_has_no_percentage(self, run):
        result = run("train", "--n-sparse", 16, "--ratio", 1, "--steps", 5, "--out", "n.safetensors")
        assert result.returncode == 0, result.stderr
        assert "law of a rug of this size 0\n" in result.stdout

    def test_killed_and_resumed_it_ends_with_the_same_bits(self, run, tmp_path, command_environment):
        steps = 3000
        assert run("train", *SMALL, "--steps", steps, "--out", "whole.safetensors").returncode == 0
        options = ("--checkpoint-every", 100)
        code, _, _ = train_until(tmp_path, command_environment, steps, *options, ended_by=signal.SIGKILL)
        assert code == -signal.SIGKILL
        result = run("train", *SMALL, "--steps", steps, "--out", "n.safetensors", "--resume", *options)
        assert result.returncode == 0, result.stderr
        networks = [Network.load(tmp_path / f"{name}.safetensors") for name in ("n", "whole")]
        for name, tensor in networks[0].tensors().items():
            assert torch.equal(tensor, networks[1].tensors()[name])
        assert not (tmp_path / "n.safetensors.checkpoint").exists()

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted_it_says_so_and_keeps_the_checkpoint(self, run, tmp_path, command_environment, how):
        code, out, err = train_until(
            tmp_path, command_environment, 500_000, "--checkpoint-every", 50, ended_by=how
        )
        assert out == b""
        assert (code, err) == ENDED[how]
        # Not the temporary file of a checkpoint either.
        assert [path.name for path in tmp_path.iterdir()] == ["n.safetensors.checkpoint"]
        again = ("train", *SMALL, "--steps", 500_000, "--out", "n.safetensors")
        assert "n.safetensors.checkpoint exists; allowed: --resume" in refused(run(*again))
        other = refused(run(*again, "--resume", "--seed", 1))
        assert "has seed 0; allowed with this training: seed 1" in other

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--out", "n.npz"), "--out is n.npz; allowed: a file that ends in .safetensors"),
            (("--out", "none/n.safetensors"), "none is missing; allowed"),
            (("--p", 0), "p is 0.0; allowed"),
            (("--method", "guess"), "method is 'guess'; allowed: sampled, closure"),
            (("--paper", "--steps", 10), "--steps is 10; allowed with --paper: no --steps"),
            (("--source", "cauchy"), "source is 'cauchy'; allowed"),
            (("--learning-rate", 1e30, "--steps", 200), "allowed: finite, as with a lower learning_rate"),
        ],
    )
    def test_mistakes_are_one_line(self, run, tmp_path, options, message):
        out = () if "--out" in options else ("--out", "n.safetensors")
        assert message in refused(run("train", "--n-sparse", 16, *out, *options))
        assert not list(tmp_path.iterdir())


class TestSymmetry:
    def test_of_a_rug_and_of_a_trained_network(self, run):
        saving = ("solve", "--p", 0.1, "--ratio", 0.25, "--n-sparse", 256, "--save", "rug.safetensors")
        assert run(*saving, "--decoders", "relu").returncode == 0
        table = run("symmetry", "rug.safetensors")
        assert table.returncode == 0, table.stderr
        assert "verdict: rug-like" in table.stdout
        assert "lyapunov mean" in table.stdout
        report = json.loads(run("symmetry", "rug.safetensors", "--json").stdout)
        assert report["verdict"].startswith("rug-like")
        assert report["diagonal_variance"] < 1e-10
        assert len(report["partners"]) == 256
        assert not any(report["partners"])

    def test_of_pairs_from_arrays(self, run, tmp_path):
        W_in = np.kron(np.eye(16), [1.0, -1.0])
        np.savez(tmp_path / "pairs.npz", W_in=W_in, W_out=W_in.T, bias=np.zeros(32))
        report = json.loads(run("symmetry", "pairs.npz", "--json", "--p", 0.2).stdout)
        assert report["verdict"].startswith("knotted")
        assert report["partners"][:4] == [[1], [0], [3], [2]]
        assert report["interference_variance_mean"] == pytest.approx(pr.SparseUniform(0.2).variance)

    @pytest.mark.parametrize(
        ("write", "message"),
        [
            (lambda path: None, "cannot be read: No such file"),
            (lambda path: np.savez(path, W_in=np.ones((2, 8))), "cannot be read"),
            (lambda path: np.savez(path, W_in=np.ones((2, 8)), W_out=np.ones((2, 8))), "W_out has shape"),
            (lambda path: np.savez(path, W_in=np.array([{}]), W_out=np.ones((2, 8))), "cannot be read"),
        ],
    )
    def test_mistakes_are_one_line(self, run, tmp_path, write, message):
        write(tmp_path / "w.npz")
        assert message in refused(run("symmetry", "w.npz"))


class TestKnots:
    def test_searches_and_saves(self, run, tmp_path):
        result = run("knots", "--p", 0.2, "--ratio", 0.5, "--budget", "3s", "--out", "k.json", "--json")
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report == json.loads((tmp_path / "k.json").read_text())
        assert len(report["gain"]) == len(report["bias"]) == len(report["readout"])
        found = knots.from_recipe(report)
        source = pr.SparseUniform(0.2)
        assert found.loss == pytest.approx(found.knot.law(source, found.knot.noise(source, 0.5)), rel=1e-6)
        assert found.loss <= knots.pair().law(source, 0.0)

    def test_prints_what_it_found(self, run):
        result = run("knots", "--p", 0.1, "--ratio", 0.75, "--budget", "1")
        assert result.returncode == 0, result.stderr
        for word in ("single (the plain rug)", "best:", "of the rug", "M ="):
            assert word in result.stdout

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--p", 0, "--ratio", 0.5), "p is 0.0; allowed"),
            (("--p", 0.1, "--ratio", 1), "ratio is 1.0; allowed"),
            (("--p", 0.1, "--ratio", 0.5, "--budget", "soon"), "budget is 'soon'; allowed: a time > 0"),
            (("--p", 0.1, "--ratio", 0.5, "--budget", "-1s"), "budget is '-1s'; allowed: a time > 0"),
            (("--p", 0.1, "--ratio", 0.5, "--budget", "1e308"), "budget is '1e308'; allowed: a time > 0"),
            (("--p", 0.1, "--ratio", 0.5, "--out", "none/k.json"), "none is missing; allowed"),
        ],
    )
    def test_mistakes_are_one_line(self, run, options, message):
        assert message in refused(run("knots", *options))


class TestSolveOnKnots:
    def test_predicts_and_measures(self, run):
        options = ("--p", 0.045, "--ratio", 0.5, "--n-sparse", 1024, "--samples", 4000, "--measure", "--json")
        rows = json.loads(run("solve", *options, "--decoders", "relu,knot").stdout)["decoders"]
        row = rows["knot"]
        assert row["knot"] in {one.knot.name for one in knots.library()} | set(knots.named())
        assert row["predicted"] < 0.5 * rows["relu"]["predicted"]
        assert abs(row["measured"] - row["predicted"]) < 0.02 * row["predicted"] + 3 * row["stderr"]

    def test_bears_noise_in_mind(self, run):
        options = ("--p", 0.045, "--ratio", 0.25, "--n-sparse", 1024, "--noise", 0.05, "--json")
        rows = json.loads(run("solve", *options, "--decoders", "relu,knot").stdout)["decoders"]
        assert rows["knot"]["limit"] < rows["relu"]["limit"] * 1.02

    @pytest.mark.parametrize("options", [("--source", "gaussian"), ("--zipf", 1)])
    def test_what_does_not_go_with_knots(self, run, options):
        asked = ("solve", "--p", 0.1, "--ratio", 0.5, "--n-sparse", 64, "--decoders", "knot")
        assert "decoder is 'knot'; allowed with it" in refused(run(*asked, *options))
