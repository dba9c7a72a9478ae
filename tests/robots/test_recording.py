"""Recordings of runs: what others read in them is what the log says."""

import errno
import json

import mujoco
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from persianrug.robots.recording import write_recording
from persianrug.skin import RecordingReader
from persianrug.skin.mcap_writer import MessageWriter
from tests.robots.toys import PATCHES, SCENE, make_log


def decoded(path):
    """All messages by topic, as the reader of the MCAP project has them."""
    found = {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message, content in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time / 1e9, content))
    return found


@pytest.fixture(scope="module")
def log():
    return make_log(1.0)


@pytest.fixture(scope="module")
def path(log, tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "touch.mcap"
    write_recording(log, path)
    return path


def test_joints_and_bodies_are_those_of_the_world(log, path):
    found = decoded(path)
    assert len(found["/joint_states"]) == len(found["/tf"]) == 50
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    time, joints = found["/joint_states"][30]
    tick = log.when(time)
    assert log["time"][tick] == pytest.approx(time, abs=1e-6)
    assert (joints.name, joints.header.stamp.sec) == (["wave"], int(time))
    assert joints.position == [log["qpos"][tick, 7]]
    assert joints.velocity == pytest.approx([log["qvel"][tick, 6]])
    assert joints.effort == pytest.approx([log["ctrl"][tick, 0]])
    data.qpos[:] = log["qpos"][tick]
    mujoco.mj_kinematics(model, data)
    bodies = {one.child_frame_id: one for one in found["/tf"][30][1].transforms}
    assert set(bodies) == {"base", "paddle"}
    for name, one in bodies.items():
        assert one.header.frame_id == "world"
        place, turned = one.transform.translation, one.transform.rotation
        assert [place.x, place.y, place.z] == pytest.approx(data.body(name).xpos)
        assert [turned.w, turned.x, turned.y, turned.z] == pytest.approx(data.body(name).xquat)


def test_contacts_are_in_the_world(log, path):
    time, cloud = decoded(path)["/robot/contacts"][30]
    tick = log.when(time)
    fields = [(one.name, "<f4" if one.datatype == 7 else "<i4") for one in cloud.fields]
    points = np.frombuffer(bytes(cloud.data), dtype=fields)
    assert (cloud.header.frame_id, len(points)) == ("world", len(PATCHES))
    assert points["pressing"] == pytest.approx(log["pressing_felt"][tick])
    assert points["true_pressing"] == pytest.approx(log["pressing_true"][tick])
    assert points["pressing"][0] > 0
    # The box lies on the floor: its sole is there, and pressed from below.
    assert points["z"][0] == pytest.approx(0.0, abs=0.01)
    assert points["force_z"][0] == pytest.approx(points["pressing"][0], rel=0.01)


def test_the_skin_is_as_in_other_recordings(log, path):
    reader = RecordingReader(path)
    records = list(reader)
    assert reader.complete
    assert reader.layout.digest == log.layout.digest
    assert len(records) == len(log.frames) == 25
    for place, record in enumerate(records):
        assert record.time == pytest.approx(log.frames.time[place])
        assert np.array_equal(record.x, log.frames.decoded(place))
        assert np.array_equal(record.truth, log.frames.true(place))
        assert [one.block for one in record.codes] == [0, 1]
        assert np.array_equal(record.codes[1].values, log.frames.code(place)[1].values)
    tick = log.when(log.frames.time[20])
    assert records[20].contacts[0].pressing == pytest.approx(log["pressing_felt"][tick, 0])


def test_the_story_is_told(log, path):
    told = [(time, json.loads(content.data)) for time, content in decoded(path)["/robot/story"]]
    assert [one for _, one in told if "part" in one] == [
        {"part": part.name, "done": part.done} for part in log.parts
    ]
    assert [one["event"] for _, one in told if "event" in one] == [text for _, text in log.events]
    assert [time for time, _ in told] == sorted(time for time, _ in told)


def test_without_a_skin(tmp_path):
    write_recording(make_log(0.2, skin="truth"), tmp_path / "touch.mcap")
    assert set(decoded(tmp_path / "touch.mcap")) == {"/joint_states", "/tf", "/robot/contacts"}


@pytest.mark.parametrize("before", [None, b"a recording of before"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr
)
def test_it_is_written_whole_or_not_at_all(log, tmp_path, monkeypatch, before, error):
    path = tmp_path / "touch.mcap"
    if before is not None:
        path.write_bytes(before)
    add, count = MessageWriter._add, iter(range(100))

    def cut(self, *arguments):
        if next(count) == 99:
            raise error
        add(self, *arguments)

    monkeypatch.setattr(MessageWriter, "_add", cut)
    with pytest.raises(type(error)) as caught:
        write_recording(log, path)
    if isinstance(error, OSError):
        assert str(caught.value).endswith(f"recording {path} is not written")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == (
        {} if before is None else {"touch.mcap": before}
    )


def test_an_empty_log_is_refused(tmp_path):
    log = make_log(0.0)
    assert len(log) == 0
    with pytest.raises(ValueError, match="the log is empty"):
        write_recording(log, tmp_path / "touch.mcap")
