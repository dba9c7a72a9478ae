"""What is learnt of frames: rates, forces, noise and dead taxels; and files of it."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianrug.skin import Frames, Layout, SkinProfile
from persianrug.sources import Groups, SparseGaussian

MAT = Layout.plane(12, 16, 0.01, axes=3)
N = MAT.n_taxels


def felt(rng, frames=400, noise=0.0, on=(40, 41, 100), p=0.5, leave=0.1):
    """Frames in which three taxels come and go, each with forces about its own."""
    x = np.zeros((frames, N, 3), np.float32)
    for taxel in on:
        state = rng.random() < p
        for k in range(frames):
            if state:
                x[k, taxel] = [3, 1, -0.5] + 0.3 * rng.standard_normal(3)
            state = rng.random() >= leave if state else rng.random() < leave * p / (1 - p)
    if noise:
        x += np.float32(noise) * rng.standard_normal(x.shape, dtype=np.float32)
    return x.reshape(frames, -1)


@pytest.fixture
def rows(rng):
    return felt(rng)


@pytest.fixture
def profile(rows):
    return SkinProfile.fit(Frames(rows, time=np.arange(len(rows)) / 250), MAT)


def on_of(rows):
    return (rows.reshape(len(rows), N, 3) != 0).any(axis=2)


def test_rates_are_those_of_the_frames_shared_with_neighbours(profile, rows):
    rate = on_of(rows).mean(axis=0)
    # Half of what a taxel shows is its own, half that of its neighbours and its own again.
    assert profile.p[100] > 0.5 * rate[100]
    assert profile.p[100] < rate[100]
    assert profile.p.sum() == pytest.approx(rate.sum(), rel=0.02)
    # Beside it, but not far from it.
    assert profile.p[101] > 0.02 * rate[100]
    assert profile.p[0] == pytest.approx(3e-5)
    assert profile.p.min() >= 3e-5


def test_forces_of_neighbours_are_pooled(profile, rows):
    x = rows.reshape(-1, N, 3)[on_of(rows)[:, 100], 100]
    assert profile.mean[100] == pytest.approx(x.mean(axis=0), rel=0.15)
    assert np.sign(profile.mean[101]).tolist() == np.sign(profile.mean[100]).tolist()
    # Far from all that was touched the mean is 0, and all have been seen in the variance.
    assert profile.mean[0] == pytest.approx([0, 0, 0])
    assert profile.variance[0] == pytest.approx(
        np.square(rows.reshape(-1, N, 3)[on_of(rows)]).mean(axis=0), rel=1e-3
    )


def test_touches_end_as_often_as_they_do(profile, rows):
    on = on_of(rows)
    was, ended = on[:-1].sum(), (on[:-1] & ~on[1:]).sum()
    assert profile.leave == pytest.approx((ended + 1) / (was + 2))
    assert profile.leave == pytest.approx(0.1, abs=0.04)
    assert (profile.rate, profile.frames, profile.noise) == (pytest.approx(250), 400, 0)


def test_changes_are_those_of_touches_that_stay(rng):
    x = np.zeros((300, N, 3), np.float32)
    x[:, 50] = [4, 0, 3]
    x[:, 50] *= 1 + 0.01 * rng.standard_normal((300, 1))
    for noise in (0.0, 0.03):
        y = x + np.float32(noise) * rng.standard_normal(x.shape, dtype=np.float32)
        profile = SkinProfile.fit(Frames(y.reshape(300, -1)), MAT)
        middle = profile.change[len(profile.change) // 2]
        # |x' - x| / |x| of two that differ by 1% each; the noise is taken off on average.
        assert middle == pytest.approx(0.01 * 2**0.5 * 0.67, rel=0.3)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_noise_is_estimated_and_taken_off(rng, noise):
    clean = felt(rng)
    rows = clean + np.float32(noise) * rng.standard_normal(clean.shape, dtype=np.float32)
    found, true = (SkinProfile.fit(Frames(one), MAT) for one in (rows, clean))
    assert found.noise == pytest.approx(noise, rel=0.02)
    assert found.p == pytest.approx(true.p, rel=0.1, abs=4e-4)
    assert found.mean[100] == pytest.approx(true.mean[100], rel=0.05)
    assert found.variance[100] == pytest.approx(true.variance[100], rel=0.02, abs=noise**2 / 4)
    assert found.leave == pytest.approx(true.leave, abs=0.02)
    # What will be felt may be noisier than what was.
    assert SkinProfile.fit(Frames(clean), MAT, noise=0.2).noise == 0.2


def test_dead_and_stuck_taxels_are_found(rng):
    rows = felt(rng, noise=0.02).reshape(-1, N, 3)
    rows[:, 7] = 0
    rows[:, 9] = [0.7, 0, -0.2]
    rows[:, 100] = 0
    profile = SkinProfile.fit(Frames(rows.reshape(len(rows), -1)), MAT)
    assert np.flatnonzero(profile.dead).tolist() == [7, 9, 100]
    assert profile.rest[9] == pytest.approx([0.7, 0, -0.2])
    assert np.abs(profile.rest).sum() == pytest.approx(0.9)
    assert profile.p[[7, 9, 100]].tolist() == [0, 0, 0]
    # Without noise who never feels anything is not told from who is never touched; who is stuck, is.
    clean = felt(rng).reshape(-1, N, 3)
    clean[:, 9] = [0.7, 0, -0.2]
    profile = SkinProfile.fit(Frames(clean.reshape(len(clean), -1)), MAT)
    assert np.flatnonzero(profile.dead).tolist() == [9]
    # In so few frames a taxel that was held the same is no reason to give it up.
    assert not SkinProfile.fit(Frames(clean.reshape(len(clean), -1)[:50]), MAT).dead.any()


def test_there_is_room_for_shear_that_was_never_felt(profile):
    prior = profile.prior(np.arange(N))
    press = profile.mean[100, 0]
    assert (prior.variance[100, 1:] > (0.5 * press) ** 2).all()
    assert (np.abs(prior.mean[:, 1:]) <= np.abs(profile.mean[:, 1:])).all()
    assert prior.p == pytest.approx(profile.p.astype(np.float32))


def test_the_source_is_of_groups(profile):
    source = profile.source()
    assert isinstance(source, Groups)
    assert (source.size, source.n_sparse) == (3, MAT.n_sparse)
    flat = SkinProfile.fit(Frames(felt(np.random.default_rng(0))[:, ::3].clip(0)), MAT.without_shear())
    assert isinstance(flat.source(), SparseGaussian)
    assert source.p[300] == pytest.approx(profile.p[100])


def test_codes_by_patch(layout, frames):
    feet = tuple(name for name in layout.patches if name.endswith("_foot"))
    hand = ("jaw", "finger", "wrist")
    profile = SkinProfile.fit(frames[::10], layout, codes=[feet, hand])
    blocks = profile.blocks()
    assert [len(part) for part in blocks] == [768, 1216, 2112]
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(layout.n_taxels))
    places = profile.block_of_patch()
    assert {name: places[layout.patches.index(name)] for name in ("fl_foot", "jaw", "body")} == {
        "fl_foot": 0, "jaw": 1, "body": 2,
    }  # fmt: skip
    encoder = profile.encoder(16)
    assert sum(encoder.n_dense) == pytest.approx(768, abs=2)
    # Half for the taxels of each, half for touches, of which those of the body are few.
    assert encoder.n_dense[2] == pytest.approx(768 * 2112 / 4096 / 2, abs=2)
    assert encoder.n_dense[0] > 144 * 1.5
    assert profile.encoder(1).n_dense[0] <= 768 * 3
    assert [len(part) for part in SkinProfile.fit(frames[:9], layout).blocks()] == [4096]
    # All patches named: there are no others.
    everything = SkinProfile.fit(frames[:9], layout, codes=[layout.patches])
    assert [len(part) for part in everything.blocks()] == [4096]
    for codes, said in [([("jaw", "tail")], "codes is"), ([("jaw",), ("jaw",)], "codes hold patch jaw twice")]:
        with pytest.raises(ValueError, match=said):
            SkinProfile.fit(frames[:9], layout, codes=codes)


def test_an_encoder_has_a_number_for_so_many(profile):
    assert profile.encoder(16).n_dense == (36,)
    assert profile.encoder(1e9).n_dense == (1,)
    with pytest.raises(ValueError, match=r"ratio is 0.5; allowed: 1 or more"):
        profile.encoder(0.5)
    # Both ends of a stream make the same of the same profile.
    assert profile.encoder(16, seed=3).stream == profile.encoder(16, seed=3).stream
    assert len({profile.encoder(16).stream, profile.encoder(17).stream, profile.encoder(16, seed=1).stream}) == 3


def test_what_cannot_be_learnt_from_is_refused(rows):
    for frames, said in [
        (Frames(rows[:1]), "has 1 frames; allowed: two or more"),
        (Frames(0 * rows), "shows no touch in 400 frames"),
        (Frames(rows[:, :-3]), "has 573 numbers a frame; allowed: 576"),
    ]:
        with pytest.raises(ValueError, match=said):
            SkinProfile.fit(frames, MAT)
    with pytest.raises(ValueError, match="noise is -1"):
        SkinProfile.fit(Frames(rows), MAT, noise=-1)


def test_values_are_checked():
    good = {"p": np.full(N, 0.1), "mean": np.ones((N, 3)), "variance": np.ones((N, 3)), "leave": 0.1,
            "change": np.array([0.0, 0.1])}  # fmt: skip
    assert "192 taxels, 3 axes" in repr(SkinProfile(MAT, **good))
    for name, value, said in [
        ("p", np.full(N, 1.5), "p is from 1.5"),
        ("p", np.full(N - 1, 0.5), "p has shape"),
        ("mean", np.full((N, 3), np.nan), "mean"),
        ("variance", np.full((N, 3), -1.0), "variance holds -1"),
        ("leave", 2.0, "leave is 2"),
        ("change", np.empty(0), "change"),
        ("dead", np.zeros(N), "dead has shape"),
        ("rate", 0.0, "rate is 0"),
        ("noise", np.inf, "noise is inf"),
        ("frames", -1, "frames is -1"),
        ("codes", (("ear",),), "codes is"),
    ]:
        with pytest.raises(ValueError, match=said):
            SkinProfile(MAT, **good | {name: value})


def same(one, other):
    for name in ("p", "mean", "variance", "change", "rest", "dead"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("leave", "noise", "rate", "frames", "codes"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.layout.digest == other.layout.digest


def test_files_are_read_as_they_were_written(tmp_path, rng):
    rows = felt(rng, noise=0.02)
    rows[:, 27:30] = 0.5
    frames = Frames(rows, time=np.arange(len(rows)) * 0.01)
    profile = SkinProfile.fit(frames, MAT, codes=[("mat",)])
    profile.save(tmp_path / "mat.npz")
    read = SkinProfile.load(tmp_path / "mat.npz")
    same(profile, read)
    assert read.encoder(16).stream == profile.encoder(16).stream
    # A layout may be read from it too.
    assert Layout.read(tmp_path / "mat.npz").digest == MAT.digest
    with pytest.raises(ValueError, match=r"allowed: a name that ends in \.npz"):
        profile.save(tmp_path / "mat.npy")
    with pytest.raises(ValueError, match=r"none\.npz"):
        SkinProfile.load(tmp_path / "none.npz")


def parts_of(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_files_of_other_formats_are_refused(tmp_path, profile):
    path = tmp_path / "mat.npz"
    profile.save(path)
    parts = parts_of(path)
    told = json.loads(str(parts["profile"]))

    def refused(said, **changed):
        np.savez(tmp_path / "other.npz", **{k: v for k, v in (parts | changed).items() if v is not None})
        with pytest.raises(ValueError, match=said):
            SkinProfile.load(tmp_path / "other.npz")

    refused("of another format; allowed: persianrug skin profile 1",
            profile=np.array(json.dumps(told | {"format": "persianrug skin profile 2"})))  # fmt: skip
    refused("of another format", profile=np.array("[1]"))
    refused("it tells", profile=np.array(json.dumps(told | {"colour": "red"})))
    refused("other.npz", profile=np.array("{"))
    refused("other.npz", profile=np.array([1.0]))
    refused("it holds no array p", p=None)
    refused("it holds no array profile", profile=None)
    refused("it holds no array pos", pos=None)
    refused("p has shape", p=parts["p"][:-1])
    refused("leave", profile=np.array(json.dumps(told | {"leave": "often"})))
    refused("other.npz", profile=np.array(json.dumps(told | {"codes": 5})))
    refused("codes", profile=np.array(json.dumps(told | {"codes": [["ear"]]})))
    refused("frames", profile=np.array(json.dumps(told | {"frames": 1.5})))
    refused("mean", mean=parts["mean"].astype("U8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("profiles") / "mat.npz"
    profile = SkinProfile.fit(Frames(felt(np.random.default_rng(0))), MAT)
    profile.save(path)
    return profile, path.read_bytes(), path.with_name("mutated.npz")


def read_or_refused(written, content):
    """No byte makes another profile: a file is refused, or read as it was."""
    profile, _, path = written
    path.write_bytes(content)
    try:
        read = SkinProfile.load(path)
    except ValueError as error:
        told = str(error)
    else:
        same(profile, read)
        told = ""
    assert "\n" not in told


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused(written, data):
    content = bytearray(written[1])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    read_or_refused(written, bytes(content))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_files_that_end_early_are_refused(written, data):
    length = data.draw(st.integers(0, len(written[1]) - 1))
    read_or_refused(written, written[1][:length] + data.draw(st.binary(max_size=20)))


def test_arrays_of_objects_are_not_read(tmp_path, written):
    path = tmp_path / "mat.npz"
    path.write_bytes(written[1])
    parts = parts_of(path)
    array = io.BytesIO()
    np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, part in parts.items():
            plain = io.BytesIO()
            np.save(plain, part)
            file.writestr(f"{name}.npy", array.getvalue() if name == "p" else plain.getvalue())
    with pytest.raises(ValueError, match=r"mat\.npz"):
        SkinProfile.load(path)


def test_skins_that_are_pressed_all_over_are_not_taken_for_noise():
    rows = np.abs(np.random.default_rng(0).normal(5, 1, (60, 256)))
    profile = SkinProfile.fit(Frames(rows), Layout.plane(16, 16, 0.01))
    assert profile.noise == 0
    assert profile.p.min() > 0.9


def test_taxels_in_one_place_have_no_more_neighbours_than_others():
    n = 3000
    rows = np.zeros((60, n), dtype=np.float32)
    rows[5:, :5] = 5
    layout = Layout(
        np.zeros((n, 3)), np.tile([0, 0, 1.0], (n, 1)), np.full(n, 1e-4), np.zeros(n, int), ("a",), ("b",)
    )
    assert SkinProfile.fit(Frames(rows), layout).p.max() > 0.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": 1e20}, "mean holds 1e\\+20; allowed: sizes up to"),
        ({"noise": 1e30}, "noise is 1e\\+30; allowed: up to"),
        ({"codes": 5}, "codes is 5; allowed: sequences of names"),
        ({"dead": True}, "p of a dead taxel is"),
    ],
)
def test_profiles_out_of_all_range_are_refused(values, message):
    profile = SkinProfile.fit(Frames(np.eye(4).repeat(30, axis=0)), Layout.plane(2, 2, 0.01))
    if "mean" in values:
        values = {"mean": np.full((4, 1), values["mean"])}
    if "dead" in values:
        values = {"dead": np.ones(4, dtype=bool)}
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(profile, **values)
    with pytest.raises(ValueError, match="holds the force 1e\\+30 in frame 0; allowed: up to 1e\\+06 N"):
        SkinProfile.fit(Frames(1e30 * np.eye(4).repeat(30, axis=0)), Layout.plane(2, 2, 0.01))


def test_counts_are_as_large_as_frames_ask_for():
    rows = np.zeros((40, 256))
    rows[:, :20] = 1e5
    profile = SkinProfile.fit(Frames(rows), Layout.plane(16, 16, 0.01))
    encoder = profile.encoder(4)
    assert encoder.resolution > 1 / 512
    encoder.encode(rows[0] * 7)
    assert encoder.clipped == 0
