"""The command line as a process: what it prints, how it ends, and what it leaves behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import persianrug as pr
from tests.conftest import COMMAND, refused

CELLS = Path(__file__).parents[2] / "examples" / "data" / "pbmc68k_reduced.npz"


def test_solve_prints_limit_and_prediction(run):
    result = run("solve", "--p", 0.045, "--ratio", 0.25, "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert (report["source"]["name"], report["source"]["p"]) == ("uniform", 0.045)
    assert (report["ratio"], report["n_sparse"], report["n_dense"]) == (0.25, 8192, 2048)
    assert list(report["decoders"]) == [
        "linear",
        "relu",
        "jumprelu",
        "topk",
        "gated",
        "prolu",
        "bayes",
        "knot",
        "oamp",
    ]
    relu = report["decoders"]["relu"]
    assert relu["limit"] == pytest.approx(0.0048558, rel=1e-4)
    assert (relu["gain"], relu["bias"]) == pytest.approx((1.28921, -0.44583), rel=1e-4)
    assert relu["limit"] < relu["predicted"] < 1.01 * relu["limit"]
    for row in report["decoders"].values():
        assert row["measured"] is row["stderr"] is row["microseconds_per_vector"] is None


def test_solve_measures(run):
    command = ("solve", "--p", 0.1, "--ratio", 0.5, "--n-sparse", 999, "--source", "exponential", "--measure",
               "--json", "--samples", 2000, "--seed", 3)  # fmt: skip
    result = run(*command)
    report = json.loads(result.stdout)
    assert (report["n_sparse"], report["n_dense"], report["source"]["name"]) == (999, 500, "exponential")
    for row in report["decoders"].values():
        # What is recovered has lost nothing but rounding errors.
        assert abs(row["measured"] - row["predicted"]) < 4 * row["stderr"] + 0.01 * row["predicted"] + 1e-12
        assert row["microseconds_per_vector"] > 0
    again = json.loads(run(*command, "--decoders", "relu").stdout)
    assert again["decoders"]["relu"]["measured"] == report["decoders"]["relu"]["measured"]


def test_solve_prints_a_table(run):
    result = run("solve", "--p", 0.3, "--ratio", 0.5, "--n-sparse", 256, "--measure", "--samples", 64)
    assert result.returncode == 0
    assert result.stderr == ""
    for word in (
        "uniform source, p = 0.3",
        "predicted",
        "measured",
        "± stderr",
        "off by",
        "linear",
        "relu",
        "max(",
    ):
        assert word in result.stdout
    without = run("solve", "--p", 0.3, "--ratio", 0.5, "--n-sparse", 256)
    assert "measured" not in without.stdout


def test_solve_takes_the_decoders_that_fit_or_those_asked_for(run):
    signed = json.loads(run("solve", "--p", 0.1, "--ratio", 0.5, "--source", "gaussian", "--json").stdout)
    assert list(signed["decoders"]) == ["linear", "soft", "bayes", "oamp"]
    asked = json.loads(run("solve", "--p", 0.1, "--ratio", 0.5, "--decoders", "prolu,linear", "--json").stdout)
    assert list(asked["decoders"]) == ["prolu", "linear"]


@pytest.mark.parametrize("p", ["1e-10", "1e-20", "1e-30"])
def test_rare_features_have_finite_numbers_and_no_warnings(run, p):
    result = run("solve", "--p", p, "--ratio", 0.25, "--n-sparse", 512, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    decoders = json.loads(result.stdout)["decoders"]
    assert "knot" not in decoders
    assert decoders["bayes"]["limit"] <= decoders["relu"]["limit"] <= decoders["linear"]["limit"]
    # Interference of one active feature is large beside what the decoders are tuned to.
    assert 0.49 < decoders["relu"]["predicted"] / float(p) < 0.51


def test_solve_saves_a_model_that_weave_draws(run, tmp_path):
    saving = ("solve", "--p", 0.1, "--ratio", 0.5, "--n-sparse", 64, "--seed", 5, "--save", "model.safetensors")
    assert run(*saving).returncode == 0
    model = pr.load(tmp_path / "model.safetensors")
    assert model.encoder == pr.Rug(64, 32, seed=5)
    result = run("weave", "--model", "model.safetensors", "--out", "rug.png", "--pixels", 1)
    assert result.returncode == 0
    assert "Rug(n_sparse=64, n_dense=32, seed=5)" in result.stdout
    with Image.open(tmp_path / "rug.png") as picture:
        assert picture.size == (64, 64)


@pytest.mark.parametrize(("arguments", "side"), [((), 1024), (("--n-sparse", 765, "--ratio", 0.3), 1530)])
def test_weave_draws(run, tmp_path, arguments, side):
    result = run("weave", "--out", "rug.png", *arguments)
    assert result.returncode == 0
    assert f"{side} x {side} pixels" in result.stdout
    with Image.open(tmp_path / "rug.png") as picture:
        assert picture.size == (side, side)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


def test_help_and_version_come_without_pytorch(run):
    assert "solve" in run("--help").stdout
    assert "--measure" in run("solve", "--help").stdout
    assert run("--version").stdout == f"persianrug {pr.__version__}\n"
    code = "import sys, persianrug.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("solve --p 0 --ratio 0.25", "p is 0.0; allowed: a number from 1e-30 to 1"),
        ("solve --p 1.5 --ratio 0.25", "p is 1.5; allowed"),
        ("solve --p 1e-300 --ratio 0.25 --json", "p is 1e-300; allowed: a number from 1e-30 to 1"),
        ("solve --p 1e-6 --ratio 0.25 --decoders knot", "decoder is 'knot'; allowed with it: --p from 1e-05"),
        ("solve --p nan --ratio 0.25", "p is nan; allowed"),
        ("solve --p x --ratio 0.25", "--p"),
        ("solve --ratio 0.25", "--p is missing; allowed: a number from 1e-30 to 1, or --data FILE"),
        ("solve --p 0.1", "--ratio"),
        ("solve --p 0.1 --ratio 0", "ratio is 0.0; allowed: a number in (0, 1]"),
        ("solve --p 0.1 --ratio -1", "ratio is -1.0; allowed"),
        ("solve --p 0.1 --ratio 1.01", "ratio is 1.01; allowed"),
        ("solve --p 0.1 --ratio inf", "ratio is inf; allowed"),
        ("solve --p 0.1 --ratio 0.5 --n-sparse 1", "n_sparse is 1; allowed: an integer >= 2"),
        ("solve --p 0.1 --ratio 0.5 --n-sparse 99999999999", "n_sparse is 99999999999; allowed"),
        ("solve --p 0.1 --ratio 0.01 --n-sparse 8", "ratio is 0.01, which makes n_dense 0"),
        (
            "solve --p 0.1 --ratio 0.5 --source cauchy",
            "source is 'cauchy'; allowed: uniform, exponential, half-normal",
        ),
        ("solve --p 0.1 --ratio 0.5 --samples 1", "samples is 1; allowed"),
        ("solve --p 0.1 --ratio 0.5 --seed -1", "seed is -1; allowed"),
        ("solve --p 0.1 --ratio 0.5 --samples 99999999999999999999", "samples is 99999999999999999999; allowed"),
        ("solve --p 0.1 --ratio 0.5 --device tpu9", "device is 'tpu9'; allowed here: cpu"),
        ("solve --p 0.1 --ratio 0.5 --device meta --measure", "device is 'meta'; allowed here: cpu"),
        ("solve --p 0.1 --ratio 0.5 --device cuda:99", "device is 'cuda:99'; allowed here: cpu"),
        ("solve --p 0.1 --ratio 0.5 --save none/m.safetensors", "output folder"),
        ("solve --data none.npy --ratio 0.5", "none.npy cannot be read: No such file"),
        ("solve --data rows.csv --ratio 0.5", "ends in .csv; allowed: .npy, .npz"),
        ("solve --data bad.npy --ratio 0.5", "bad.npy cannot be read"),
        ("solve --data rows.npy --p 0.1 --ratio 0.5", "--p is 0.1; allowed with --data: no --p"),
        ("solve --data rows.npy --n-sparse 8 --ratio 0.5", "--n-sparse is 8; allowed with --data"),
        ("solve --data zeros.npy --ratio 0.5", "nothing but zeros"),
        ("solve --data nan.npy --ratio 0.5", "nan in column"),
        ("solve --p 0.1 --ratio 0.5 --decoders relu,guess", "decoder is 'guess'; allowed: linear, relu"),
        ("solve --p 0.1 --ratio 0.5 --source gaussian --decoders relu", "source gaussian is signed; allowed with"),
        (
            "solve --p 0.1 --ratio 0.5 --source gaussian --save m.safetensors",
            "allowed with it: decoders with relu",
        ),
        ("weave", "--out"),
        ("weave --out rug.jpg", "--out is rug.jpg; allowed: a file that ends in .png"),
        ("weave --out none/rug.png", "is missing; allowed: an existing folder"),
        ("weave --out rug.png --n-sparse 9000", "n_sparse is 9000; allowed: an integer from 2 to 8192"),
        ("weave --out rug.png --ratio 2", "ratio is 2.0; allowed"),
        ("weave --out rug.png --pixels 0", "pixels is 0; allowed"),
        ("weave --out rug.png --seed -3", "seed is -3; allowed"),
        ("weave --out rug.png --model none.safetensors", "none.safetensors is missing"),
        ("weave --out rug.png --model bad.npy", "bad.npy cannot be read"),
        ("weave --out rug.png --model bad.npy --ratio 0.5", "allowed with --model: no --ratio"),
        ("weave --out folder.png", "not a regular file"),
        ("knit", "knit"),
        ("solve --nonsense", "--nonsense"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, arguments, words):
    np.save(tmp_path / "rows.npy", np.eye(8))
    np.save(tmp_path / "zeros.npy", np.zeros((8, 8)))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    (tmp_path / "bad.npy").write_bytes(b"\x80\x04pickle")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert words in refused(run(*arguments.split()))
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_command_help_is_printed(run):
    result = run()
    assert (result.returncode, result.stderr) == (2, "")
    assert "solve" in result.stdout


def test_no_memory_is_one_line(command_environment):
    limited = (
        f"ulimit -v 6000000; exec {sys.executable} -m persianrug solve --p 0.1 --ratio 0.25 --n-sparse 1000000000"
    )
    result = subprocess.run(
        ["bash", "-c", limited], env=command_environment, capture_output=True, text=True, check=False
    )
    assert "out of memory" in refused(result)


def test_narrow_encodings_and_closed_output(run, command_environment):
    command = [
        *COMMAND,
        "solve",
        "--p",
        "0.1",
        "--ratio",
        "0.5",
        "--n-sparse",
        "64",
        "--measure",
        "--samples",
        "8",
    ]
    ascii_only = command_environment | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, env=ascii_only, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "? stderr" in result.stdout
    closed = subprocess.run(
        ["bash", "-c", " ".join(command) + " >&-"], env=command_environment, capture_output=True, check=False
    )
    assert b"Traceback" not in closed.stderr


def test_how_far_laws_are_off(run, tmp_path):
    generator = np.random.default_rng(0)
    features = generator.random((200, 16)) * (generator.random((200, 16)) < 0.1)
    # Every feature four times, which laws take for independent ones.
    np.save(tmp_path / "rows.npy", features.repeat(4, axis=1))
    printed = run("solve", "--data", "rows.npy", "--ratio", 0.6, "--measure", "--decoders", "oamp").stdout
    assert [line.split()[5] for line in printed.splitlines() if line.startswith("  oamp")] == [">100x"] * 2
    # Where nothing is predicted to be lost there is no ratio.
    nothing = ("--p", 0.1, "--ratio", 1, "--n-sparse", 16, "--samples", 2, "--measure")
    printed = run("solve", *nothing, "--decoders", "linear").stdout
    assert [line.split()[5] for line in printed.splitlines() if line.startswith("  linear")] == ["-"]


def test_small_rugs_are_tuned_to_the_ratio_they_have(run):
    report = json.loads(run("solve", "--p", 0.3, "--ratio", 0.5, "--n-sparse", 3, "--json").stdout)
    source = pr.SparseUniform(0.3)
    assert report["n_dense"] == 2
    assert report["decoders"]["linear"]["predicted"] == pytest.approx(source.variance / 3)
    assert report["decoders"]["linear"]["limit"] == pytest.approx(source.variance / 2)


def test_without_the_fast_kernel_all_is_the_same(command_environment):
    arguments = "persianrug solve --p 0.1 --ratio 0.5 --n-sparse 256 --measure --samples 64 --json"
    code = "import sys; {} ; sys.argv = {!r}; from persianrug.cli import main; main()"
    measured = []
    for block in ("pass", "sys.modules['fht_cpu'] = None"):
        command = [sys.executable, "-c", code.format(block, arguments.split())]
        result = subprocess.run(command, env=command_environment, capture_output=True, text=True, check=True)
        measured.append(json.loads(result.stdout)["decoders"]["relu"]["measured"])
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)


def test_a_damaged_model_is_refused(run, tmp_path):
    pr.Autoencoder(pr.Rug(64, 16), pr.ReLU()).save(tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    other = content.replace(b'"version":"2"', b'"version":"9"')
    for damaged, word in [(content[:-20], "cannot be read"), (content.replace(b"64", b"65"), "damaged"),
                          (other, "version 9; allowed")]:  # fmt: skip
        (tmp_path / "m.safetensors").write_bytes(damaged)
        assert word in refused(run("weave", "--model", "m.safetensors", "--out", "rug.png"))
        assert not (tmp_path / "rug.png").exists()


def test_a_folder_that_is_not_writable_is_refused(run, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(folder, os.W_OK):
            # Root may write anywhere; a folder of the kernel's refuses even root.
            folder = Path("/proc")
        message = refused(run("weave", "--out", folder / "rug.png"))
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert "allowed" in message or "No such file" in message or "not permitted" in message


def test_output_that_nobody_reads_or_that_finds_no_room(run, command_environment, tmp_path):
    command = [*COMMAND, "solve", "--p", "0.1", "--ratio", "0.5"]
    with subprocess.Popen(
        command, env=command_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == b""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*command, "--json"], env=command_environment,
                                stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1


LONG = ["solve", "--p", "0.5", "--ratio", "0.5", "--measure", "--samples", "1000000", "--n-sparse", "8192"]


@pytest.mark.parametrize("wait", [0.05, 3.0])
def test_interruption_is_one_line(start, wait):
    process = start(*LONG)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == ""
    if wait > 1:
        assert process.returncode == 130
        assert err.strip() == "persianrug: interrupted"
    else:
        # Python itself was still starting.
        assert process.returncode in (130, -signal.SIGINT, 1)


@pytest.mark.slow
def test_killed_in_the_middle_leaves_the_old_picture(command_environment, tmp_path):
    picture = tmp_path / "rug.png"
    first = [*COMMAND, "weave", "--out", str(picture)]
    subprocess.run(first, env=command_environment, check=True, capture_output=True)
    before = picture.read_bytes()
    for wait in (0.5, 2.5, 3.5):
        process = subprocess.Popen([*COMMAND, "weave", "--out", str(picture), "--n-sparse", "4096"],
                                   env=command_environment, stdout=subprocess.DEVNULL)  # fmt: skip
        time.sleep(wait)
        process.kill()
        process.wait()
        content = picture.read_bytes()
        if content != before:
            with Image.open(picture) as whole:
                whole.load()
                assert whole.size == (4096, 4096)
            before = content


def test_progress_is_shown_on_a_terminal_only(command_environment, tmp_path):
    arguments = ["solve", "--p", "0.3", "--ratio", "0.5", "--n-sparse", "8192", "--measure", "--samples", "4000",
                 "--decoders", "linear,relu,bayes"]  # fmt: skip
    leader, follower = os.openpty()
    with Path(tmp_path / "out").open("w") as out:
        process = subprocess.Popen([*COMMAND, *arguments, "--json"], env=command_environment | {"TERM": "xterm"},
                                   stdout=out, stderr=follower)  # fmt: skip
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert process.wait(timeout=60) == 0
    os.close(leader)
    assert b"solving" in shown
    json.loads((tmp_path / "out").read_text())


@pytest.mark.parametrize("tag", ["solve", "cells"])
def test_the_docs_show_what_is_printed(run, tag):
    page = (CELLS.parents[2] / "docs" / "decoders.md").read_text()
    shown = page.split(f"<!-- {tag} -->")[1].split("```")[1]
    options = ("--p", 0.045, "--ratio", 0.25)
    if tag == "cells":
        options = ("--data", CELLS, "--ratio", 0.6, "--decoders", "linear,relu,topk,bayes")
    printed = run("solve", *options).stdout
    # Without --measure: the first line, the laws, and the formulas. Data is named by its path there.
    assert printed.splitlines()[0].replace(str(CELLS), "examples/data/pbmc68k_reduced.npz") in shown
    for line in printed.splitlines()[2:]:
        for word in line.replace("─", "").split():
            assert word in shown.split()


class TestTheLadder:
    def test_oamp_reports_its_way(self, run):
        options = (
            "--n-sparse",
            1024,
            "--ratio",
            0.4,
            "--decoders",
            "oamp",
            "--measure",
            "--samples",
            32,
            "--json",
        )
        row = json.loads(run("solve", "--p", 0.1, *options).stdout)["decoders"]["oamp"]
        assert row["recovers"]
        assert row["recovered"] == 1
        assert row["iterations"] == len(row["predicted_trace"])
        assert row["measured_trace"][0] == pytest.approx(row["predicted_trace"][0], rel=0.1)
        assert row["measured_trace"][-1] < 1e-10
        assert row["recovery_threshold"] == pytest.approx(0.188, abs=1e-3)
        said = run("solve", "--p", 0.4, *options[:-1]).stdout
        assert "no recovery, the ratio 0.4 is below the threshold 0.4" in said

    def test_noise_bits_and_erasures_are_predicted_and_measured(self, run):
        options = ("--p", 0.05, "--ratio", 0.3, "--n-sparse", 2048, "--decoders", "linear,relu,bayes,oamp")
        channel = ("--noise", 0.02, "--bits", 6, "--erasures", 0.2, "--measure", "--samples", 256)
        report = json.loads(run("solve", *options, *channel, "--json").stdout)
        assert report["channel"] == {"noise": 0.02, "bits": 6, "erasures": 0.2}
        for name, row in report["decoders"].items():
            assert row["measured"] == pytest.approx(row["predicted"], rel=0.1 if name == "oamp" else 0.03)
        clear = json.loads(run("solve", *options, "--json").stdout)
        assert clear["decoders"]["relu"]["predicted"] < report["decoders"]["relu"]["predicted"]

    def test_zipf_takes_the_decoders_that_fit(self, run):
        options = ("--p", 0.02, "--ratio", 0.5, "--zipf", 1, "--n-sparse", 64, "--json")
        report = json.loads(run("solve", *options).stdout)
        assert list(report["decoders"]) == ["linear", "relu", "jumprelu", "gated", "prolu", "bayes", "oamp"]

    def test_zipf(self, run):
        options = ("--p", 0.02, "--ratio", 0.25, "--zipf", 1.0, "--n-sparse", 1024, "--measure", "--json")
        result = run("solve", *options, "--samples", 1000, "--decoders", "linear,relu,bayes,oamp")
        report = json.loads(result.stdout)
        assert report["source"]["p"] == pytest.approx(0.02)
        assert report["source"]["zipf"] == 1.0
        for name, row in report["decoders"].items():
            assert row["measured"] == pytest.approx(row["predicted"], rel=0.05, abs=1e-3 if name == "oamp" else 0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--noise -1", "noise is -1.0; allowed"),
            ("--bits 0", "bits is 0; allowed: an integer from 1 to 16"),
            ("--bits 17", "bits is 17; allowed"),
            ("--erasures 1", "erasures is 1.0; allowed"),
            ("--erasures 0.9999", "leaves none of n_dense"),
            ("--zipf -1", "exponent is -1.0; allowed"),
            ("--zipf 1 --decoders topk", "features that differ; allowed with decoder topk"),
            ("--source gaussian --decoders topk", "is signed; allowed with decoder topk"),
        ],
    )
    def test_mistakes(self, run, options, message):
        assert message in refused(run("solve", "--p", 0.1, "--ratio", 0.5, "--n-sparse", 64, *options.split()))

    def test_phase(self, run, tmp_path):
        result = run("phase", "--out", "phase.png", "--p", 0.1, "--source", "constant")
        assert result.returncode == 0
        assert "constant source" in result.stdout
        with Image.open(tmp_path / "phase.png") as picture:
            assert picture.width > 1000
            # Neither blank nor of one colour.
            assert len(picture.convert("RGB").resize((200, 80)).getcolors(100_000)) > 100
        for options, message in [(("--out", "phase.jpg"), "allowed: a file that ends in .png"),
                                 (("--out", "x.png", "--p", 1), "p is 1.0; allowed"),
                                 (("--out", "x.png", "--source", "no"), "source is 'no'")]:  # fmt: skip
            assert message in refused(run("phase", *options))
            assert not (tmp_path / "x.png").exists()
