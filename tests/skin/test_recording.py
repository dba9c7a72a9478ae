"""Recordings: what is written is read, by others too; killed writers, full disks, damage."""

import signal
import struct
import subprocess
import sys
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from persianrug.skin import ContactTracker, Estimate, Layout, RecordedCode, RecordingReader, RecordingWriter

MAT = Layout.plane(4, 5, 0.01, axes=3)


def play(count, layout=MAT, seed=0):
    """What a writer is given, frame by frame."""
    rng = np.random.default_rng(seed)
    tracker = ContactTracker(layout)
    played = []
    for frame in range(count):
        x = rng.exponential(size=(layout.n_taxels, layout.axes)).astype(np.float32)
        seen = np.array([frame % 3 > 0])
        estimate = Estimate(7 + frame, x, 0.01 * x, np.minimum(x[:, 0], 1), 0.1 * frame, seen, ~seen)
        code = [RecordedCode(0, rng.integers(-2000, 2000, 8).astype(np.int32), frame, 12)]
        truth = rng.exponential(size=x.shape).astype(np.float32) if frame % 2 else None
        played.append((1e9 + 0.1 * frame, estimate, tracker.update(estimate, float(frame)), code, truth))
    return played


def write(path, played, layout=MAT):
    with RecordingWriter(path, layout) as writer:
        for one in played:
            writer.write(*one)
    return path


def same(record, played):
    """Whether a record is what was written, contacts up to 32 bits."""
    second, estimate, contacts, codes, truth = played
    assert record.time == pytest.approx(second, abs=1e-6)
    assert (record.frame, record.expected_error) == (estimate.frame, estimate.expected_error)
    assert np.array_equal(record.x, estimate.x)
    assert np.array_equal(record.explained, estimate.explained)
    assert np.array_equal(record.heard, estimate.heard)
    assert (record.truth is None) == (truth is None)
    assert truth is None or np.array_equal(record.truth, truth)
    for found, code in zip(record.codes, codes, strict=True):
        assert (found.block, found.exponent, found.bits) == (code.block, code.exponent, code.bits)
        assert np.array_equal(found.values, code.values)
    for found, contact in zip(record.contacts, contacts, strict=True):
        for name, value in vars(contact).items():
            if isinstance(value, str | bool):
                assert getattr(found, name) == value
            else:
                assert getattr(found, name) == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name
    return True


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording in several chunks: its frames, its file and the bytes of that."""
    played = play(40)
    path = write(tmp_path_factory.mktemp("recorded") / "one.mcap", played)
    return SimpleNamespace(played=played, content=path.read_bytes(), path=path)


def test_what_was_written_is_read(recorded):
    reader = RecordingReader(recorded.path)
    assert not reader.complete
    # Twice, as it is a file.
    for _ in range(2):
        assert all(same(*pair) for pair in zip(reader, recorded.played, strict=True))
        assert reader.complete
    assert reader.layout.digest == MAT.digest


@pytest.mark.parametrize("axes", [1, 3])
def test_the_skin_of_a_robot_is_recorded(tmp_path, layout, axes):
    layout = layout if axes == 3 else layout.without_shear()
    played = play(3, layout)
    reader = RecordingReader(write(tmp_path / "one.mcap", played, layout))
    assert (reader.layout.digest, reader.layout.patches) == (layout.digest, layout.patches)
    assert all(same(*pair) for pair in zip(reader, played, strict=True))


def test_another_reader_decodes_the_messages(tmp_path, layout):
    """That of the MCAP project, which knows of ROS 2 what their definitions in the file say."""
    played = play(2, layout)
    found = {}
    with write(tmp_path / "one.mcap", played, layout).open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message, content in reader.iter_decoded_messages():
            assert message.log_time == message.publish_time
            found.setdefault(channel.topic, []).append((message.log_time, content))
    assert {topic: len(messages) for topic, messages in found.items()} == {
        "/skin/layout": 1, "/skin/names": 1, "/skin/state": 2, "/skin/taxels": 2, "/skin/contacts": 2,
        "/skin/code": 2, "/skin/truth": 1,
    }  # fmt: skip
    second, estimate, contacts, code, truth = played[1]
    stamp, taxels = found["/skin/taxels"][1]
    assert stamp == round(second * 1e9)
    assert [(one.label, one.size, one.stride) for one in taxels.layout.dim] == [
        ("taxel", 4096, 12288), ("axis", 3, 3),
    ]  # fmt: skip
    assert np.array_equal(np.array(taxels.data, dtype=np.float32), estimate.x.ravel())
    assert np.array_equal(np.array(found["/skin/truth"][0][1].data, dtype=np.float32), truth.ravel())
    assert list(found["/skin/code"][1][1].data) == code[0].values.tolist()
    cloud = found["/skin/contacts"][1][1]
    assert (cloud.header.stamp.sec, cloud.header.frame_id) == (int(second), "skin")
    assert (cloud.height, cloud.width, cloud.row_step) == (1, 20, 20 * cloud.point_step)
    offsets = {field.name: (field.offset, field.datatype) for field in cloud.fields}
    for i, contact in enumerate(contacts):
        start = i * cloud.point_step
        for name, value in [("x", contact.centre[0]), ("force_z", contact.force[2]), ("slip", contact.slip),
                            ("area_stderr", contact.area_stderr)]:  # fmt: skip
            offset, kind = offsets[name]
            assert kind == 7
            assert struct.unpack_from("<f", bytes(cloud.data), start + offset)[0] == pytest.approx(
                value, rel=1e-6, nan_ok=True
            )
        assert bytes(cloud.data)[start + offsets["valid"][0]] == contact.valid
        assert offsets["valid"][1] == 2
    points = found["/skin/layout"][0][1]
    assert points.width == 4096
    normals = np.frombuffer(bytes(points.data), dtype=np.float32).reshape(4096, -1)[:, 3:6]
    assert np.array_equal(normals, layout.normal)


def test_a_frame_is_packed_fast(tmp_path, layout):
    """It takes 0.15 ms."""
    played = play(20, layout)
    took = []
    with RecordingWriter(tmp_path / "one.mcap", layout) as writer:
        for one in played:
            start = time.perf_counter()
            writer.write(*one)
            took.append(time.perf_counter() - start)
    assert np.median(took) < 1e-3


WRITING = """
import resource, sys
import numpy as np
from persianrug.skin import ContactTracker, Estimate, Layout, RecordingWriter
path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
layout = Layout.plane(30, 30, 0.01)
tracker, rng = ContactTracker(layout), np.random.default_rng(0)
with RecordingWriter(path, layout) as writer:
    for frame in range(2000 if limit else 10**9):
        estimate = Estimate.certain(frame, rng.exponential(size=(900, 1)).astype(np.float32))
        try:
            writer.write(0.01 * frame, estimate, tracker.update(estimate, 0.01 * frame))
        except OSError as error:
            print(error.errno, error.strerror)
            try:
                writer.write(0.01 * frame, estimate, tracker.update(estimate, 0.01 * frame))
            except ValueError as error:
                print(error)
            break
        if frame == 500:
            print("many", flush=True)
"""


def frames_of(path):
    """The numbers of frames that are read, each checked."""
    rng = np.random.default_rng(0)
    reader = RecordingReader(path)
    for count, record in enumerate(reader, 1):
        assert record.frame == count - 1
        assert np.array_equal(record.x, rng.exponential(size=(900, 1)).astype(np.float32))
    return count, reader.complete


def test_a_killed_writer_leaves_what_it_wrote(tmp_path):
    path = tmp_path / "one.mcap"
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(path), "0"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"many\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    count, complete = frames_of(path)
    # All but the last second or less.
    assert count > 400
    assert not complete


def test_a_full_disk_ends_a_recording_with_one_clear_error(tmp_path):
    path = tmp_path / "one.mcap"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WRITING, str(path), "1000000"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    full, closed = done.stdout.splitlines()[-2:]
    assert f"File too large: recording {path} ends before frame" in full
    assert closed == f"recording {path} is closed; allowed: frames before that"
    count, complete = frames_of(path)
    assert 100 < count < 2000
    assert not complete


def test_an_interrupt_within_a_frame_leaves_whole_frames(tmp_path, monkeypatch):
    played = play(30)
    writer = RecordingWriter(tmp_path / "one.mcap", MAT)
    for one in played[:-1]:
        writer.write(*one)
    add = writer._add

    def interrupted(topic, *rest):
        if topic == "/skin/contacts":
            raise KeyboardInterrupt
        add(topic, *rest)

    monkeypatch.setattr(writer, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.write(*played[-1])
    records = list(RecordingReader(tmp_path / "one.mcap"))
    assert len(records) > 15
    assert all(same(*pair) for pair in zip(records, played, strict=False))


def read_prefix(path, content, played):
    """How much of a damaged recording is read, all of it right; None if it is refused at once or within."""
    path.write_bytes(content)
    count = 0
    try:
        reader = RecordingReader(path)
        for record in reader:
            assert same(record, played[count])
            count += 1
    except ValueError as error:
        said = str(error)
    else:
        return count, reader.complete
    assert "damaged.mcap cannot be read: " in said
    return None


@given(st.data())
def test_a_file_that_ends_early_is_read_up_to_there(recorded, data):
    length = data.draw(st.integers(0, len(recorded.content) - 1))
    found = read_prefix(recorded.path.with_name("damaged.mcap"), recorded.content[:length], recorded.played)
    if found is not None:
        count, complete = found
        # Once all data are there an index may be missing.
        assert count == 40 if complete else 0 < count <= 40


@given(st.data())
def test_damage_is_seen(recorded, data):
    """Frames are never wrong, and never missing from a file that is said to be complete."""
    content = bytearray(recorded.content)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    found = read_prefix(recorded.path.with_name("damaged.mcap"), bytes(content), recorded.played)
    if found is not None and found[1]:
        assert found[0] == 40


def records_of(content):
    """Kind, place and bytes of each record of a file."""
    place = 8
    while place < len(content) - 8:
        kind, length = struct.unpack_from("<BQ", content, place)
        yield kind, place, content[place + 9 : place + 9 + length]
        place += 9 + length


def test_a_chunk_that_is_made_something_else_is_missed(recorded):
    """Its checksum is not looked at then."""
    chunks = [place for kind, place, _ in records_of(recorded.content) if kind == 6]
    assert len(chunks) > 3
    for which, said in [(0, None), (1, "frame .* is missing"), (-1, "the checksum of the whole is wrong")]:
        content = bytearray(recorded.content)
        content[chunks[which]] = 0x85
        recorded.path.with_name("damaged.mcap").write_bytes(content)
        with pytest.raises(ValueError, match=said):
            list(RecordingReader(recorded.path.with_name("damaged.mcap")))


def forged(recorded, change):
    """The recording with its first chunk's content changed, and its checksum right."""
    content = recorded.content
    place, chunk = next((place, chunk) for kind, place, chunk in records_of(content) if kind == 6)
    start, end, size, _ = struct.unpack_from("<QQQI", chunk)
    inner = change(zstandard.decompress(chunk[28 + 4 + 4 + 8 :], size))
    new = (
        struct.pack("<QQQI", start, end, len(inner), zlib.crc32(inner)) + struct.pack("<IQ", 0, len(inner)) + inner
    )
    return content[:place] + struct.pack("<BQ", 6, len(new)) + new + content[place + 9 + len(chunk) :]


@given(st.data())
def test_forged_messages_are_refused_or_read(recorded, data):
    """Checksums do not help against those who compute them: no crash."""

    def change(inner):
        inner = bytearray(inner)
        for _ in range(data.draw(st.integers(1, 4))):
            inner[data.draw(st.integers(0, len(inner) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(inner)

    path = recorded.path.with_name("damaged.mcap")
    path.write_bytes(forged(recorded, change))
    said = "damaged.mcap cannot be read: "
    try:
        list(RecordingReader(path))
    except ValueError as error:
        said = str(error)
    assert "damaged.mcap cannot be read: " in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"digest": ', b'"digest":1', "its layout has the digest"),
        (b'"version": 1', b'"version": 2', "its version is 2; allowed: 1"),
        (b"\x03\x00\x00\x00cdr", b"\x03\x00\x00\x00xml", "encoded as 'xml'; allowed: cdr"),
        (b"/skin/layout", b"/skin/lay_ut", "holds no message /skin/layout"),
        (b"/skin/state", b"/skin/st_te", "no message /skin/state"),
        (b"/skin/taxels", b"/skin/t_xels", "no message /skin/taxels"),
    ],
)  # fmt: skip
def test_files_of_others_are_refused(recorded, old, new, said):
    path = recorded.path.with_name("damaged.mcap")

    def change(inner):
        assert old in inner
        return inner.replace(old, new)

    path.write_bytes(forged(recorded, change))
    with pytest.raises(ValueError, match=said):
        list(RecordingReader(path))


def test_no_more_is_unpacked_than_a_chunk_may_hold(recorded):
    path = recorded.path.with_name("damaged.mcap")
    bomb = zstandard.compress(bytes(1 << 24))
    for size, said in [
        (1 << 40, "claims to unpack to 1099511627776 bytes"),
        (100, "the checksum of a chunk is wrong"),
    ]:
        chunk = struct.pack("<QQQI", 0, 0, size, 0) + struct.pack("<I", 4) + b"zstd"
        chunk += struct.pack("<Q", len(bomb)) + bomb
        path.write_bytes(recorded.content[:8] + struct.pack("<BQ", 6, len(chunk)) + chunk)
        with pytest.raises(ValueError, match=said):
            RecordingReader(path)


def test_what_does_not_fit_is_refused_before_it_is_written(tmp_path, layout):
    time, estimate, contacts, _, _ = play(1)[0]
    path = tmp_path / "one.mcap"
    with RecordingWriter(path, MAT) as writer:
        for arguments, said in [
            ((-1.0, estimate, contacts), "time is -1.0"),
            ((2.0**31, estimate, contacts), "time is 2.14748e"),
            ((time, estimate, contacts[:0]), "contacts are 0; allowed: one for each of the layout's 1"),
            (
                (time, Estimate.certain(0, np.zeros((20, 1), np.float32)), contacts),
                r"an array has shape \(20, 1\)",
            ),
            ((time, estimate, contacts, (), np.zeros(60)), r"an array has shape \(60,\)"),
        ]:
            with pytest.raises(ValueError, match=said):
                writer.write(*arguments)
        writer.write(time, estimate, contacts)
    assert len(list(RecordingReader(path))) == 1
    with pytest.raises(ValueError, match="is closed"):
        writer.write(time, estimate, contacts)
    for name, said in [("one.bag", r"a name that ends in \.mcap"), ("none/one.mcap", "folder .* is missing")]:
        with pytest.raises(ValueError, match=said):
            RecordingWriter(tmp_path / name, layout)


def test_a_recording_without_frames_holds_nothing(tmp_path):
    RecordingWriter(tmp_path / "one.mcap", MAT).close()
    with pytest.raises(ValueError, match="it ends before its first frames"):
        RecordingReader(tmp_path / "one.mcap")


def test_without_the_extra_one_line_says_what_to_do(tmp_path, monkeypatch, recorded):
    monkeypatch.setitem(sys.modules, "mcap.writer", None)
    with pytest.raises(ValueError, match=r"the package mcap; allowed: after pip install '\.\[skin\]'"):
        RecordingWriter(tmp_path / "one.mcap", MAT)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.delitem(sys.modules, "persianrug.skin.mcap_chunks")
    with pytest.raises(ValueError, match="recordings take the package mcap"):
        RecordingReader(recorded.path)
