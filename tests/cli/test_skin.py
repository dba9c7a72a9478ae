"""Skins on the command line: fit, plan, bench and inspect."""

import json
import re
import sys

import numpy as np
import pytest

from persianrug.skin import Frames, Layout, RecordingReader, SkinProfile, bench
from tests.cli.helpers import files, of_json, ran
from tests.cli.skins import EXAMPLES, SIDE, blobs
from tests.conftest import forged_header, refused, without_privileges

pytestmark = pytest.mark.usefixtures("mat")


class TestFit:
    def test_says_what_it_has_learnt(self, mat):
        said = mat.said
        assert "profile.npz: profile of 256 taxels of pressure in 1 patch, from 200 frames at 100 a second" in said
        assert re.search(r"\d\.\d\d% of taxels touched in a frame, for [\d.]+ m?s on average; noise 0 N", said)
        assert re.search(r"predicted: an error of 5% or less down to [\d.]+:1, \d+ bytes a frame", said)
        profile = SkinProfile.load(mat.folder / "profile.npz")
        assert (profile.frames, profile.rate) == (200, pytest.approx(100))
        assert profile.layout.digest == Layout.plane(SIDE, SIDE, 0.01).digest

    def test_counts_taxels(self, here, command):
        report = of_json(
            command("skin", "fit", "touch.npz", "--mat", f"{SIDE}x{SIDE}:0.01", "--out", "p.npz", "--json")
        )
        frames = np.stack(list(Frames.read(here / "touch.npz")))
        assert report["frames"] == len(frames) == 200
        assert report["share_touched"] == pytest.approx((frames > 0).mean())
        assert report["taxels_touched"] == (frames > 0).any(axis=0).sum()
        assert report["taxels_never_touched"] == SIDE**2 - report["taxels_touched"]
        assert (report["taxels_dead"], report["noise"], report["codes"]) == (0, 0, 1)
        assert 1 < report["ratio_of_5_percent"] < 64

    def test_taxels_beside_the_frames(self, here, command):
        layout = Layout.plane(SIDE, SIDE, 0.01)
        arrays = {f"taxel_{name}": part for name, part in layout.arrays().items()}
        np.savez(here / "whole.npz", frames=blobs(20), **arrays)
        assert of_json(command("skin", "fit", "whole.npz", "--out", "p.npz", "--json"))["n_taxels"] == SIDE**2

    def test_pressure_of_taxels_that_feel_shear_too(self, here, command):
        Layout.plane(SIDE, SIDE, 0.01, axes=3).save(here / "three.npz")
        options = ("--layout", "three.npz", "--out", "p.npz", "--json")
        assert of_json(command("skin", "fit", "touch.npz", *options))["axes"] == 1

    def test_patches_with_codes_of_their_own_and_noise(self, here, command):
        mat = Layout.plane(SIDE, SIDE, 0.01)
        patch = np.repeat([0, 1, 2, 2], SIDE**2 // 4)
        Layout(mat.position, mat.normal, mat.area, patch, tuple("abc"), tuple("abc")).save(here / "parts.npz")
        options = ("--layout", "parts.npz", "--codes", "c,a", "--noise", 0.03, "--out", "p.npz", "--json")
        report = of_json(command("skin", "fit", "touch.npz", *options))
        assert (report["codes"], report["noise"], report["patches"]) == (3, 0.03, 3)
        assert [len(block) for block in SkinProfile.load(here / "p.npz").blocks()] == [128, 64, 64]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("touch.npz",), "holds no taxels; allowed: with --layout TAXELS.npz, or of a plane mat with --mat"),
            (("touch.npz", "--mat", "16:3"), "--mat is '16:3'; allowed: ROWSxCOLS:PITCH in metres"),
            (("touch.npz", "--mat", "16x17:0.01"), "has 256 numbers a frame; allowed: 272"),
            (("touch.npz", "--mat", "0x17:0.01"), "rows is 0; allowed"),
            (("touch.npz", "--mat", "16x16:nan"), "pitch is nan; allowed"),
            (("touch.npz", "--mat", "16x16:1", "--layout", "t.npz"), "beside --layout; allowed: one of them"),
            (("touch.npz", "--layout", "none.npz"), "layout file none.npz cannot be read: No such file"),
            (("touch.npz", "--layout", "lengths.npz"), "normal has shape (255, 3); allowed: (256, 3)"),
            (("nan.npy", "--mat", "16x16:0.01"), "nan.npy holds nan in frame 3 at number 5; allowed: finite"),
            (("infinite.npy", "--mat", "16x16:0.01"), "infinite.npy holds inf in frame 3 at number 5"),
            (("negative.npy", "--mat", "16x16:0.01"), "the pressure -1 in frame 3 at taxel 5; allowed"),
            (("forged.npy", "--mat", "16x16:0.01"), "it claims an array"),
            (("zeros.npy", "--mat", "16x16:0.01"), "shows no touch in 20 frames; allowed"),
            (("one.npy", "--mat", "16x16:0.01"), "has 1 frames; allowed: two or more"),
            (("none.npz", "--mat", "16x16:0.01"), "frames file none.npz cannot be read"),
            (("touch.csv", "--mat", "16x16:0.01"), "ends in .csv; allowed: .npz, .npy"),
            (("touch.npz", "--mat", "16x16:0.01", "--codes", "jaw"), "codes is 'jaw'; allowed: mat"),
            (("touch.npz", "--mat", "16x16:0.01", "--codes", "mat+mat"), "codes hold patch mat twice"),
            (("touch.npz", "--mat", "16x16:0.01", "--noise", "-1"), "noise is -1.0; allowed"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        frames = blobs(20)
        for name, value in (("nan", np.nan), ("infinite", np.inf), ("negative", -1)):
            wrong = frames.copy()
            wrong[3, 5] = value
            np.save(here / f"{name}.npy", wrong)
        np.save(here / "zeros.npy", 0 * frames)
        np.save(here / "one.npy", frames[:1])
        (here / "forged.npy").write_bytes(forged_header((1 << 40, 256)))
        parts = Layout.plane(SIDE, SIDE, 0.01).arrays()
        np.savez(here / "lengths.npz", **parts | {"normal": parts["normal"][1:]})
        before = files(here)
        assert words in refused(command("skin", "fit", *arguments, "--out", "p.npz"))
        assert files(here) == before

    def test_where_it_writes(self, here, command, run_apart):
        options = ("touch.npz", "--mat", "16x16:0.01", "--out")
        assert "allowed: a file that ends in .npz" in refused(command("skin", "fit", *options, "p.json"))
        assert "is missing; allowed" in refused(command("skin", "fit", *options, "no/p.npz"))
        closed = here / "closed"
        closed.mkdir(mode=0o500)
        message = refused(run_apart("skin", "fit", *options, "closed/p.npz", preexec_fn=without_privileges))
        assert "is not writable; allowed: a writable folder" in message

    def test_without_numba_it_says_what_installs_it(self, here, command, monkeypatch):
        monkeypatch.setitem(sys.modules, "numba", None)
        for arguments in (
            ("fit", "touch.npz", "--mat", "16x16:0.01", "--out", "p.npz"), ("plan", "profile.npz", "--ratio", 4),
            ("bench", "touch.npz", "--profile", "profile.npz"), ("inspect", "profile.npz"),
            ("send", "touch.npz", "--profile", "profile.npz", "--to", "localhost:1"),
            ("receive", "--profile", "profile.npz", "--port", 1),
        ):  # fmt: skip
            message = refused(command("skin", *arguments))
            assert "skins take the package numba; allowed: after pip install '.[skin]'" in message

    def test_without_mcap_it_says_what_installs_it(self, here, command, monkeypatch):
        monkeypatch.setitem(sys.modules, "mcap.writer", None)
        for arguments in (("bench", "touch.npz"), ("receive", "--port", 0)):
            message = refused(command("skin", *arguments, "--profile", "profile.npz", "--out", "t.mcap"))
            assert "recordings take the package mcap; allowed: after pip install '.[skin]'" in message
        assert not (here / "t.mcap").exists()


class TestPlan:
    def test_of_a_ratio(self, here, command):
        report = of_json(command("skin", "plan", "profile.npz", "--ratio", 4, "--packets", 2, "--json"))
        # 64 numbers of 12 bits, and two headers of 22 bytes.
        assert (report["bytes_per_frame"], report["packets_per_frame"]) == (96 + 2 * 22, 2)
        assert report["bytes_per_second"] == pytest.approx(100 * 140)
        assert 0 < report["predicted_error"] < 0.05
        said = ran(command("skin", "plan", "profile.npz", "--ratio", 4, "--packets", 2))
        assert "4:1 in 12 bits: 140 bytes a frame in 2 packets, 14 kB a second" in said

    def test_of_an_error(self, here, command):
        found = {
            target: of_json(command("skin", "plan", "profile.npz", "--target-error", target, "--json"))
            for target in (0.05, 0.6)
        }
        for target, report in found.items():
            assert report["predicted_error"] <= target
        assert found[0.6]["ratio"] > found[0.05]["ratio"] > 1

    def test_loss_costs(self, here, command):
        plans = [
            of_json(command("skin", "plan", "profile.npz", "--ratio", 6, "--packet-loss", loss, "--json"))
            for loss in (0, 0.4)
        ]
        assert plans[1]["predicted_error"] > plans[0]["predicted_error"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "--ratio and --target-error are both missing; allowed: one of them"),
            (("--ratio", 4, "--target-error", 0.1), "--ratio and --target-error are both given"),
            (("--ratio", 0.5), "ratio is 0.5; allowed: 1 or more"),
            (("--ratio", "nan"), "ratio is nan; allowed"),
            (("--target-error", 1e-9), "target_error is 1e-09; allowed:"),
            (("--ratio", 4, "--bits", 17), "bits is 17; allowed: an integer from 2 to 16"),
            (("--ratio", 4, "--packet-loss", 1), "packet_loss is 1; allowed: from 0 to below 1"),
            (("--ratio", 4, "--packets", 0), "packets is 0; allowed"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        assert words in refused(command("skin", "plan", "profile.npz", *arguments))

    def test_of_no_profile(self, here, command):
        for name in ("touch.npz", "none.npz", "taxels.txt"):
            (here / "taxels.txt").write_text("no")
            assert "profile file" in refused(command("skin", "plan", name, "--ratio", 4))


KEYS = {
    "frames", "share_within_1_percent", "share_within_5_percent", "empty_right", "predicted_error",
    "measured_error", "measured_error_stderr", "frames_per_second", "p99_ms", "encode_us", "bytes_per_frame",
    "explained", "expected_error",
}  # fmt: skip


class TestBench:
    def test_what_it_measures_is_what_the_library_does(self, here, command):
        options = ("--ratio", 4, "--noise", 0.01, "--packet-loss", 0.1, "--packets", 4)
        report = of_json(command("skin", "bench", "other.npz", "--profile", "profile.npz", *options, "--json"))
        assert report.keys() >= KEYS
        profile, frames = SkinProfile.load(here / "profile.npz"), Frames.read(here / "other.npz")
        found = bench(profile, frames, ratio=4, noise=0.01, packet_loss=0.1, packets=4)
        for name in ("measured_error", "expected_error", "share_within_5_percent", "explained", "empty_right"):
            assert report[name] == getattr(found, name)
        assert report["frames"] == len(frames)
        assert report["touched"] == sum(frame.any() for frame in frames)
        assert report["bytes_per_frame"] == 96 + 4 * 22
        assert report["share_within_5_percent"] > 0.9
        assert 0.3 < report["expected_error"] / report["measured_error"] < 3

    def test_without_a_profile_the_first_half_is_fitted(self, here, command):
        options = ("--mat", "16x16:0.01", "--ratio", 4)
        said = ran(command("skin", "bench", "touch.npz", *options))
        assert "touch.npz: 100 frames, after the first 100, which the profile was fitted to" in said
        assert re.search(r"% of \d+ empty frames read as empty", said)
        assert "frames a second decoded on one thread" in said
        report = of_json(command("skin", "bench", "touch.npz", *options, "--json"))
        assert (report["frames"], report["fitted_frames"], report["fitted_here"]) == (100, 100, True)

    def test_a_npy_file_and_a_limit(self, here, command):
        np.save(here / "rows.npy", blobs(30))
        options = ("--profile", "profile.npz", "--limit", 10, "--ratio", 4, "--json")
        assert of_json(command("skin", "bench", "rows.npy", *options))["frames"] == 10

    def test_seeds_say_what_is_lost(self, here, command):
        def measured(seed):
            options = ("--ratio", 4, "--packet-loss", 0.3, "--noise", 0.01, "--seed", seed, "--json")
            return of_json(command("skin", "bench", "other.npz", "--profile", "profile.npz", *options))[
                "measured_error"
            ]

        assert measured(1) == measured(1) != measured(2)

    def test_a_recording_beside_the_truth(self, here, command):
        options = ("--profile", "profile.npz", "--ratio", 4, "--out", "t.mcap")
        assert "t.mcap: 100 frames recorded" in ran(command("skin", "bench", "other.npz", *options))
        reader = RecordingReader(here / "t.mcap")
        for record, frame in zip(reader, Frames.read(here / "other.npz"), strict=True):
            assert np.array_equal(record.truth.ravel(), frame)
            assert np.abs(record.x - record.truth).max() < 0.5
        assert reader.complete
        said = ran(command("skin", "inspect", "t.mcap", "--out", "t.png"))
        assert "100 beside the true frame" in said
        assert (here / "t.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("touch.npz",), "holds no taxels; allowed: with --layout"),
            (
                ("touch.npz", "--profile", "profile.npz", "--mat", "16x16:0.01"),
                "--mat is 16x16:0.01; allowed with",
            ),
            (("narrow.npy", "--profile", "profile.npz"), "has 255 numbers a frame; allowed: 256"),
            (("nan.npy", "--profile", "profile.npz"), "holds nan in frame 0 at number 0"),
            (("negative.npy", "--profile", "profile.npz"), "the pressure -1 in frame 0 at taxel 0"),
            (("empty.npy", "--profile", "profile.npz"), "has no frames; allowed: one or more"),
            (("other.npz", "--profile", "profile.npz", "--limit", 0), "limit is 0; allowed"),
            (("other.npz", "--profile", "profile.npz", "--noise", "nan"), "noise is nan; allowed"),
            (("other.npz", "--profile", "profile.npz", "--packet-loss", 1.5), "loss is 1.5; allowed"),
            (("other.npz", "--profile", "profile.npz", "--seed", -1), "seed is -1; allowed"),
            (("other.npz", "--profile", "profile.npz", "--out", "t.json"), "allowed: a file that ends in .mcap"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        np.save(here / "narrow.npy", np.ones((3, 255)))
        np.save(here / "nan.npy", np.full((3, 256), np.nan))
        np.save(here / "negative.npy", -np.ones((3, 256)))
        np.save(here / "empty.npy", np.ones((0, 256)))
        assert words in refused(command("skin", "bench", *arguments))

    def test_frames_that_are_lost_are_wrong_unless_they_are_empty(self, mat):
        profile = SkinProfile.load(mat.folder / "profile.npz")
        touch = Frames(np.tile(blobs(31)[30], (40, 1)))
        found = bench(profile, touch, ratio=4, packet_loss=0.5, packets=1)
        assert found.lost > 5
        # What was last found is still right, and does not count.
        assert found.share_within_1_percent == pytest.approx(1 - found.lost / 40)
        none = bench(profile, Frames(np.zeros((40, SIDE**2))), ratio=4, packet_loss=0.5, packets=1)
        assert (none.share_within_1_percent, none.measured_error, none.empty_right) == (None, None, 1.0)


class TestInspect:
    def test_of_every_kind(self, here, command):
        Layout.plane(SIDE, SIDE, 0.01).save(here / "taxels.npz")
        kinds = {"profile.npz": "profile", "touch.npz": "frames", "taxels.npz": "layout"}
        for name, kind in kinds.items():
            assert of_json(command("skin", "inspect", name, "--json"))["kind"] == kind
            assert ran(command("skin", "inspect", name)).startswith(f"{name}: ")

    def test_a_frame_and_its_picture(self, here, command):
        options = ("--layout", "profile.npz", "--frame", 30, "--out", "f.png", "--json")
        report = of_json(command("skin", "inspect", "touch.npz", *options))
        assert report["shown"]["frame"] == 30
        assert report["shown"]["taxels_touched"] == (blobs(31)[30] > 0).sum()
        assert report["shown"]["contacts"]["mat"]["pressing"] == pytest.approx(blobs(31)[30].sum(), rel=1e-5)
        assert (here / "f.png").read_bytes().startswith(b"\x89PNG")

    def test_the_examples(self, here, command):
        said = ran(command("skin", "inspect", EXAMPLES / "pull.npz", "--layout", EXAMPLES / "taxels.npz"))
        assert "500 frames of 12288 numbers at 250 a second, 2 s" in said
        assert "jaw" in said

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("touch.npz", "--frame", 200), "--frame is 200; allowed: 0 to 199"),
            (("touch.npz", "--out", "f.png"), "is frames without taxels, which --layout TAXELS.npz says"),
            (("profile.npz", "--out", "f.png"), "profile.npz is a profile"),
            (("touch.npz", "--out", "f.jpg"), "--out is f.jpg; allowed: a file that ends in .png"),
            (("none.npz",), "skin file none.npz cannot be read: No such file"),
            (("damaged.npz",), "skin file damaged.npz cannot be read"),
            (("none.mcap",), "recording file none.mcap cannot be read"),
            (("damaged.mcap",), "recording file damaged.mcap cannot be read"),
            (("touch.txt",), "ends in .txt; allowed"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        for name in ("damaged.npz", "damaged.mcap"):
            (here / name).write_bytes(b"hello")
        before = files(here)
        assert words in refused(command("skin", "inspect", *arguments))
        assert files(here) == before

    def test_a_recording_that_is_cut_off(self, here, command):
        ran(command("skin", "bench", "touch.npz", "--profile", "profile.npz", "--ratio", 4, "--out", "t.mcap"))
        content = (here / "t.mcap").read_bytes()
        (here / "cut.mcap").write_bytes(content[: len(content) * 4 // 5])
        report = of_json(command("skin", "inspect", "cut.mcap", "--json"))
        assert not report["complete"]
        assert 0 < report["frames"] < 200
        middle = bytearray(content)
        middle[len(content) * 3 // 4] ^= 1
        (here / "wrong.mcap").write_bytes(middle)
        result = command("skin", "inspect", "wrong.mcap", "--json")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert json.loads(result.stdout)["problem"]
