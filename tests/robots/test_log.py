"""Logs: what was recorded is read, and files that are none are refused."""

import io
import json
import zipfile

import numpy as np
import pytest

from persianrug.robots import log as module
from persianrug.robots.log import FIELDS, Log, Worn
from persianrug.robots.taxel_log import TaxelLog
from persianrug.skin import Estimate
from tests.robots.toys import PATCHES, SCENE, make_layout, make_log


@pytest.fixture(scope="module")
def log():
    return make_log(1.0)


@pytest.fixture(scope="module")
def content(log, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.npz"
    log.save(path)
    return path.read_bytes()


def changed(content, tmp_path, **parts):
    """A file with some of its arrays replaced, or left out where they are None."""
    with np.load(io.BytesIO(content)) as found:
        arrays = {name: found[name] for name in found} | parts
    path = tmp_path / "changed.npz"
    np.savez_compressed(path, **{name: part for name, part in arrays.items() if part is not None})
    return path


def told(content, **changes):
    with np.load(io.BytesIO(content)) as found:
        said = json.loads(found["told"].tobytes())
    return np.frombuffer(json.dumps(said | changes).encode(), dtype=np.uint8)


def test_it_holds_every_tick(log):
    assert len(log) == 250
    assert log["time"] == pytest.approx(0.004 * np.arange(250))
    assert {name: log[name].shape[1:] for name in FIELDS} == {
        "time": (), "qpos": (8,), "qvel": (7,), "ctrl": (1,), "estimate_qpos": (8,), "pressing_true": (2,),
        "pressing_felt": (2,), "force_true": (2, 3), "force_felt": (2, 3), "centre_felt": (2, 3), "valid": (2,),
        "stance": (1,), "pull": (), "grip": (),
    }  # fmt: skip
    # It falls, and stays; what it is, not what it was when the log ended.
    assert log["qpos"][0, 2] == 0.5
    assert log["qpos"][-1, 2] == pytest.approx(0.1, abs=0.01)
    assert log["pressing_felt"] == pytest.approx(1.05 * log["pressing_true"])
    assert [part.name for part in log.parts] == ["fall", "let go"]
    assert [text for _, text in log.events] == ["feels the floor", "feels a pull of 6.1 N"]


def test_what_is_saved_is_loaded(log, tmp_path):
    log.save(tmp_path / "log.npz")
    found = Log.load(tmp_path / "log.npz")
    for name in FIELDS:
        assert np.array_equal(found[name], log[name], equal_nan=name != "valid")
        assert found[name].dtype == FIELDS[name]
    assert (found.scene, found.worn, found.meta) == (log.scene, log.worn, log.meta)
    assert (found.parts, found.events) == (log.parts, log.events)
    assert found.layout.digest == log.layout.digest
    assert found.frames.time == log.frames.time
    for place in range(len(log.frames)):
        assert np.array_equal(found.frames.true(place), log.frames.true(place))
        assert np.array_equal(found.frames.decoded(place), log.frames.decoded(place))
        pairs = zip(found.frames.code(place), log.frames.code(place), strict=True)
        assert all((a.block, a.exponent, a.bits) == (b.block, b.exponent, b.bits) for a, b in pairs)
        assert found.frames.estimate(place).expected_error == log.frames.estimate(place).expected_error
    assert repr(found) == "Log(toy in drop: 1.0 s, 250 ticks, 25 frames of its skin)"
    # Nothing was lost but what is below 5 mN.
    assert not np.array_equal(found.frames.decoded(20) != 0, np.ones((80, 3), dtype=bool))


def test_it_grows(monkeypatch):
    monkeypatch.setattr(module, "_ROOM", 3)
    small = make_log(0.1)
    assert len(small) == 25
    assert small["time"] == pytest.approx(0.004 * np.arange(25))


def test_a_log_of_no_tick_is_a_log(tmp_path):
    empty = make_log(0.0)
    empty.save(tmp_path / "log.npz")
    found = Log.load(tmp_path / "log.npz")
    assert (len(found), found.scene, len(found.frames)) == (0, SCENE, 0)
    with pytest.raises(ValueError, match="the log is empty"):
        found["qpos"]


def test_without_a_skin(tmp_path):
    make_log(0.1, skin="truth").save(tmp_path / "log.npz")
    found = Log.load(tmp_path / "log.npz")
    assert (found.layout, found.frames) == (None, None)
    assert np.array_equal(found["pressing_true"], found["pressing_felt"])


def test_frames_come_25_times_a_second(log):
    assert np.diff(log.frames.time) == pytest.approx(0.04)
    assert log.frames.nearest(0.43) == 11


def test_an_unknown_name_is_a_key_error(log):
    with pytest.raises(KeyError, match="name is 'nope'; allowed: time, qpos"):
        log["nope"]


def test_when(log):
    assert [log.when(time) for time in (-1.0, 0.0, 0.0039, 0.004, 0.5, 9.0)] == [0, 0, 0, 1, 125, 249]


def test_a_tick_lacks_nothing():
    log = Log(SCENE, Worn(PATCHES, ("base", "paddle"), "base"))
    with pytest.raises(ValueError, match="a tick has no qvel; allowed: all of time"):
        log.add(time=0.0, qpos=np.zeros(8))
    with pytest.raises(ValueError, match="feet and hands is 'heel'; allowed: sole, palm"):
        Worn(PATCHES, ("base", "paddle"), "base", feet=("heel",))
    with pytest.raises(ValueError, match="true has 3 numbers; allowed: 240, a frame"):
        TaxelLog(make_layout()).append(0.0, np.zeros(3), Estimate.certain(0, np.zeros((80, 3), np.float32)))


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"told": None}, "it holds no array told"),
        ({"told": np.zeros(3)}, "a text has shape"),
        ({"qvel": None}, "qvel"),
        ({"qvel": np.zeros((9, 7), np.float32)}, "qvel has shape"),
        ({"qpos": np.zeros((250, 8), np.float32)}, "qpos has shape"),
        ({"pressing_felt": np.zeros((250, 3), np.float32)}, "pressing_felt has"),
        ({"force_true": np.zeros((250, 2), np.float32)}, "force_true has"),
        ({"stance": np.zeros((250, 4), bool)}, "stance has shape"),
        ({"time": np.linspace(1, 0, 250)}, "its times are not in their order"),
        ({"frames_true_indptr": np.zeros(26, np.int64)}, "rows end"),
        ({"frames_true_indices": np.full(10**4, 10**6)}, "true_indices go up to"),
        ({"frames_code_told": None}, "frames_code_told"),
        ({"frames_heard": np.ones((3, 2), bool)}, "heard"),
        ({"taxel_area": np.zeros(80)}, "area of taxel"),
        ({"qpos": np.array([{}] * 250)}, "Python objects"),
    ],
)
def test_damaged_files_are_refused(content, tmp_path, parts, why):
    with pytest.raises(ValueError, match=r"^log file .*changed\.npz cannot be read: .*") as caught:
        Log.load(changed(content, tmp_path, **parts))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"version": 9}, {"worn": {}}, {"parts": [["a"]]}, {"events": 3}, {"meta": 5}], ids=str
)
def test_damaged_texts_are_refused(content, tmp_path, changes):
    with pytest.raises(ValueError, match=r"^log file .* cannot be read: "):
        Log.load(changed(content, tmp_path, told=told(content, **changes)))


def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("cut.npz", "other.npz", "missing.npz", "log.txt"):
        with pytest.raises(ValueError, match=rf"^log file .*{name} "):
            Log.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"allowed: a name that ends in \.npz"):
        make_log(0.0).save(tmp_path / "log.json")


def test_a_claim_beyond_its_bytes_is_refused(content, tmp_path):
    path = tmp_path / "bomb.npz"
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("extra.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6,)})
        file.write(bytes(8 * 10**6))
    # It is not asked for.
    assert len(Log.load(path)) == 250
    big = np.zeros((34_000_000,), np.float64)
    with pytest.raises(ValueError, match="unpacks to"):
        Log.load(changed(content, tmp_path, time=big))
