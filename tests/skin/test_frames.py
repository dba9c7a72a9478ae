"""Files of frames, and what is refused."""

import io
import zipfile

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from persianrug.skin import Frames, Layout

from .conftest import DATA


def stored(rows, prefix="", **more):
    """The arrays of a file of sparse frames."""
    rows = scipy.sparse.csr_array(np.asarray(rows, dtype=np.float32))
    found = {"data": rows.data, "indices": rows.indices.astype(np.int16), "indptr": rows.indptr}
    found |= {"shape": np.array(rows.shape)} | more
    return {prefix + name: value for name, value in found.items() if value is not None}


def read(tmp_path, name="", **arrays):
    np.savez_compressed(tmp_path / "frames.npz", **arrays)
    return Frames.read(f"{tmp_path}/frames.npz{name}")


ROWS = np.array([[0, 2, 0], [1, 0, 0.5], [0, 0, 0]], dtype=np.float32)


def test_the_example_is_two_seconds_of_a_story(frames, layout, truth):
    assert (len(frames), frames.n_sparse, frames.rate) == (500, 12288, pytest.approx(250))
    assert repr(frames) == "Frames(pull.npz: 500 frames of 12288 numbers, 250 a second)"
    assert {frames.label_names[label] for label in frames.label} == {"gripped", "pull", "released"}
    frames.check(layout)
    rows = scipy.sparse.csr_array((truth["data"], truth["indices"].astype(int), truth["indptr"]), (500, 12288))
    for found, row in zip(frames[:20], rows[:20].toarray(), strict=True):
        assert found.dtype == np.float32
        assert np.array_equal(found, row)


def test_files_of_every_kind_give_the_same_frames(tmp_path):
    np.save(tmp_path / "frames.npy", ROWS)
    np.save(tmp_path / "columns.npy", np.asfortranarray(ROWS.astype(np.float64)))
    whole = [
        read(tmp_path, **stored(ROWS)),
        read(tmp_path, frames=ROWS),
        read(tmp_path, ":stiff", **stored(ROWS, "stiff_"), **stored(2 * ROWS, "soft_")),
        read(tmp_path, **stored(ROWS, format=np.array(b"csr"))),
        read(tmp_path, **stored(ROWS, shape=None, taxel_pos=np.zeros((3, 3)))),
        Frames.read(tmp_path / "frames.npy"),
        Frames.read(tmp_path / "columns.npy"),
        Frames(ROWS),
        Frames(scipy.sparse.csc_array(ROWS)),
    ]
    for frames in whole:
        assert np.array_equal(np.stack(list(frames)), ROWS)
        assert np.array_equal(frames[-2], ROWS[1])


def test_times_and_labels_follow_a_slice(tmp_path):
    more = {"time": np.array([0.0, 0.1, 0.3]), "phase": np.array([1, 1, 0]), "phase_names": np.array(["a", "b"])}
    frames = read(tmp_path, **stored(ROWS, **more))
    part = frames[1:]
    assert (len(part), part.time.tolist(), part.label.tolist()) == (2, [0.1, 0.3], [1, 0])
    assert part.label_names == ("a", "b")
    assert frames.rate == pytest.approx(2 / 0.3)
    assert len(frames[3:]) == 0
    assert read(tmp_path, frames=ROWS, label=np.array([5, 6, 7])).label.tolist() == [5, 6, 7]
    assert read(tmp_path, frames=ROWS).rate is None


def test_a_frame_is_an_array_of_its_own(frames):
    one = frames[0]
    one[:] = 1
    assert frames[0].min() <= 0


def test_entries_that_are_stored_in_parts_add_up(tmp_path):
    arrays = {"data": np.ones(3, np.float32), "indices": np.array([1, 1, 0]), "indptr": np.array([0, 3])}
    assert read(tmp_path, **arrays, shape=np.array([1, 2]))[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": None}, "it holds no array frames, and none of data"),
        ({"indices": None}, "it holds no array indices"),
        ({"shape": None}, "it holds no array shape"),
        ({"shape": np.array([3, 2])}, "indices holds 2 in frame 1; allowed: 0 to 1"),
        ({"shape": np.array([4, 3])}, "indptr has 4 entries; allowed: 5"),
        ({"shape": np.array([3, 1 << 40])}, "it claims 1099511627776 numbers a frame"),
        ({"shape": np.array([3.0, 3])}, "shape is"),
        ({"indices": np.array([-1, 0, 2])}, "indices holds -1 in frame 0; allowed: 0 to 2"),
        ({"indices": np.array([1.0, 0, 2])}, "indices has shape .* of float64"),
        ({"indices": np.array([1, 0])}, r"data has shape \(3,\) where indices has \(2,\)"),
        ({"indptr": np.array([0, 2, 1, 3])}, "indptr does not run from 0 to 3"),
        ({"indptr": np.array([0, 1, 3, 5])}, "indptr does not run from 0 to 3"),
        ({"indptr": np.array([1, 1, 3, 3])}, "indptr does not run from 0 to 3"),
        ({"data": np.array([2, np.nan, 1])}, "holds nan in frame 1 at number 0"),
        ({"data": np.array([2, 1, -np.inf])}, "holds -inf in frame 1 at number 2"),
        ({"data": np.array([2, 1e200, 1])}, r"holds inf in frame 1 at number 0"),
        ({"data": np.array([2, 1j, 1])}, "its entries are of type complex128"),
        ({"data": np.array([2, None, 1])}, "its part data.npy holds Python objects"),
        ({"format": np.array("coo")}, "its format is 'coo'; allowed: csr"),
        ({"time": np.array([0.0, 1.0])}, r"time has shape \(2,\); allowed: \(3,\)"),
        ({"time": np.array([0.0, 2.0, 1.0])}, "time of frame 2 is 1 s after 2 s"),
        ({"time": np.array([0.0, np.nan, 1.0])}, "time of frame 1 is not finite"),
        ({"label": np.array([0.0, 1, 2])}, "label has shape .* of float64"),
        ({"phase": np.array([0, 1, 2]), "phase_names": np.array(["a", "b"])}, "label of frame 2 is 2; allowed"),
    ],
)  # fmt: skip
def test_files_that_are_no_frames_are_refused(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        read(tmp_path, **stored(ROWS, **changed))


def test_the_names_of_skins_are_said(tmp_path):
    two = {**stored(ROWS, "stiff_"), **stored(ROWS, "soft_")}
    with pytest.raises(ValueError, match=r"a name after it, frames\.npz:soft, of soft, stiff"):
        read(tmp_path, **two)
    with pytest.raises(ValueError, match="no skin of the name 'hard'; allowed: one of soft, stiff"):
        read(tmp_path, ":hard", **two)
    with pytest.raises(ValueError, match="no skin of the name 'hard'; allowed: no name, it holds one skin"):
        read(tmp_path, ":hard", **stored(ROWS))
    np.save(tmp_path / "frames.npy", ROWS)
    with pytest.raises(ValueError, match="none of the name 'stiff'; allowed: no name"):
        Frames.read(f"{tmp_path}/frames.npy:stiff")
    read(tmp_path, ":stiff", **two)
    assert len(Frames.read(tmp_path / "frames.npz", "stiff")) == 3


def test_frames_of_another_skin_are_refused(frames, layout):
    with pytest.raises(ValueError, match=r"pull\.npz has 12288 numbers a frame; allowed: 4096"):
        frames.check(layout.without_shear())
    mat = Layout.plane(1, 3, 0.01)
    Frames(ROWS).check(mat)
    for rows in (ROWS - 1, scipy.sparse.csr_array(ROWS - 1)):
        with pytest.raises(ValueError, match="frames holds the pressure -1 in frame 0 at taxel 0"):
            Frames(rows).check(mat)


def test_numbers_that_are_none_are_named_in_dense_frames_too(monkeypatch):
    monkeypatch.setattr("persianrug.skin.frames._BLOCK", 3)
    rows = ROWS.copy()
    rows[2, 1] = np.nan
    with pytest.raises(ValueError, match="frames holds nan in frame 2 at number 1"):
        Frames(rows)


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    """A file of some bytes that claims terabytes is refused at once."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    )
    (tmp_path / "frames.npy").write_bytes(header.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="ends before that does"):
        Frames.read(tmp_path / "frames.npy")
    with zipfile.ZipFile(tmp_path / "frames.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", header.getvalue() + bytes(64))
    with pytest.raises(ValueError, match="has not the size that its header says"):
        Frames.read(tmp_path / "frames.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 17, 1 << 10)}
    )
    with zipfile.ZipFile(tmp_path / "frames.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", header.getvalue() + bytes(1 << 29))
    with pytest.raises(ValueError, match="it unpacks to 536871040 bytes, too many"):
        Frames.read(tmp_path / "frames.npz")


@given(st.data())
def test_damaged_files_are_refused_or_read(tmp_path_factory, data):
    content = bytearray((DATA / "pull.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content[: data.draw(st.integers(len(content) - 200, len(content)))])
    said = "damaged.npz"
    try:
        # What is in no checksum says nothing that matters.
        assert len(Frames.read(path)) == 500
    except ValueError as error:
        said = str(error)
    assert "damaged.npz" in said


def test_pressures_that_noise_makes_negative_are_read():
    rng = np.random.default_rng(0)
    rows = 0.03 * rng.standard_normal((60, 256))
    rows[:, :8] += 5
    frames = Frames(rows)
    assert frames.noise == pytest.approx(0.03, rel=0.1)
    frames.check(Layout.plane(16, 16, 0.01))
    rows[3, 40] = -1
    with pytest.raises(
        ValueError, match=r"holds the pressure -1 in frame 3 at taxel 40; allowed: numbers >= -0\.3"
    ):
        Frames(rows).check(Layout.plane(16, 16, 0.01))
