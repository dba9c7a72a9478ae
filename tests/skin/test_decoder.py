"""Streams read frame by frame: what is recovered, what is lost, and what is never claimed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persianrug.skin import Frames, Layout, Reading, SkinDecoder, SkinEncoder, SkinProfile, packets_of

FEET = ("fl_foot", "fr_foot", "hl_foot", "hr_foot")
HAND = ("jaw", "finger", "wrist")
# Frames of the recording in which nobody pulls yet, and in which somebody does.
QUIET, PULL = slice(0, 110), slice(122, 229)


@pytest.fixture(scope="module")
def quiet(layout, frames):
    """Fitted before anybody pulls."""
    return SkinProfile.fit(frames[QUIET], layout, noise=0.0)


@pytest.fixture(scope="module")
def noisy(layout, frames):
    return SkinProfile.fit(frames[QUIET], layout, noise=0.03)


def sent(encoder, frame, packets=1):
    return [part for code in encoder.encode(frame) for part in packets_of(code, encoder.stream, packets)]


def read(decoder, packets):
    return [found for packet in packets for found in decoder.step(packet)]


def off(found, frame):
    size = np.linalg.norm(frame)
    return float(np.linalg.norm(found.x.ravel() - frame) / size) if size else float(np.abs(found.x).max())


def felt(frame, noise, rng):
    return frame + np.float32(noise) * rng.standard_normal(frame.shape, dtype=np.float32)


def same(one, other):
    for name in ("x", "variance", "active", "explained", "heard"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert (one.frame, one.expected_error) == (other.frame, other.expected_error)


@pytest.mark.parametrize("memory", [True, False])
def test_frames_are_recovered(quiet, frames, memory):
    encoder = quiet.encoder(16)
    decoder = SkinDecoder(quiet, encoder, memory=memory)
    for k in range(0, 60, 2):
        (found,) = read(decoder, sent(encoder, frames[k]))
        assert off(found, frames[k]) < 5e-3
        assert found.expected_error < 5e-3
        assert found.explained.all()
        assert found.heard.all()
        assert found.frame == k // 2


def test_expected_errors_are_those_that_are_made(noisy, frames, rng):
    encoder = noisy.encoder(16)
    decoder = SkinDecoder(noisy, encoder)
    errors, expected, scores = [], [], []
    for k in range(0, 100, 2):
        (found,) = read(decoder, sent(encoder, felt(frames[k], 0.03, rng)))
        errors.append(off(found, frames[k]))
        expected.append(found.expected_error)
        true = frames[k].reshape(found.x.shape)
        on = found.active > 0.99
        scores.append(np.square(found.x - true)[on] / found.variance[on])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(np.mean(np.square(expected))), rel=0.15)
    assert np.sqrt(np.mean(np.concatenate(scores))) == pytest.approx(1, abs=0.2)


def test_shear_that_was_never_felt_is_read(quiet, noisy, layout, frames, rng):
    """The pull, with what was learnt before it, as it was and with all shears turned around."""
    hand = np.concatenate([layout.of(name) for name in HAND])
    directions = layout.directions[hand]

    def net(x):
        return np.einsum("ta,tac->c", x.reshape(-1, 3)[hand], directions)

    before = np.array([net(frame) for frame in frames[QUIET]])
    turned = np.tile([1, -1, -1], 4096).astype(np.float32)
    for signs in (np.float32(1), turned):
        true = np.array([net(signs * frame) for frame in frames[PULL]])
        # In one direction at least it is a force of which nothing like it was felt.
        assert (np.abs(true[-1] - before.mean(axis=0)) > 10 * before.std(axis=0) + 5).any()
        for profile, ratio, noise in [(quiet, 16, 0.0), (noisy, 16, 0.03), (noisy, 32, 0.03)]:
            encoder = profile.encoder(ratio)
            decoder = SkinDecoder(profile, encoder)
            errors, forces = [], []
            for frame in frames[PULL]:
                (found,) = read(decoder, sent(encoder, felt(signs * frame, noise, rng)))
                errors.append(off(found, signs * frame))
                forces.append(net(found.x))
            gap = np.sqrt(np.square(np.array(forces) - true).mean())
            assert np.mean(np.array(errors) <= (0.05 if noise else 0.01)) >= 0.97
            # Of two patches together.
            assert gap < (0.02 if not noise else 0.85 * ratio / 16)


def test_a_packet_lost_costs_little(noisy, frames, rng):
    encoder = noisy.encoder(16)
    decoder = SkinDecoder(noisy, encoder)
    errors = []
    for k in range(100):
        packets = sent(encoder, felt(frames[k], 0.03, rng), 8)
        errors += [
            off(found, frames[found.frame]) for found in read(decoder, [p for p in packets if rng.random() > 0.2])
        ]
    errors += [off(found, frames[found.frame]) for found in decoder.flush()]
    assert len(errors) == 100
    assert max(errors) < 0.05
    assert decoder.assembler.counts.partial > 50


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(8)), doubled=st.lists(st.integers(0, 7), max_size=3))
def test_packets_in_any_order_give_the_same(quiet, frames, order, doubled):
    encoder = quiet.encoder(16)
    packets = sent(encoder, frames[20], 8)
    (right,) = read(SkinDecoder(quiet, encoder), packets)
    (found,) = read(SkinDecoder(quiet, encoder), [packets[i] for i in [*order[:7], *doubled, order[7]]][:99])[:1]
    if not set(doubled) - set(order[:7]):
        same(found, right)


def test_the_same_packets_give_the_same_bits(noisy, frames, rng):
    encoder = noisy.encoder(24)
    packets = [p for k in range(40) for p in sent(encoder, felt(frames[k], 0.03, rng), 4) if rng.random() > 0.1]
    runs = []
    for _ in range(2):
        decoder = SkinDecoder(noisy, noisy.encoder(24))
        runs.append(read(decoder, packets) + decoder.flush())
    assert len(runs[0]) == 40
    for one, other in zip(*runs, strict=True):
        same(one, other)


def test_frames_that_did_not_come_are_passed_over(noisy, frames, rng):
    encoder = noisy.encoder(16)
    decoder = SkinDecoder(noisy, encoder)
    found = []
    for k in range(100):
        packets = sent(encoder, felt(frames[k], 0.03, rng))
        if not 30 <= k < 70:
            found += read(decoder, packets)
    assert [one.frame for one in found] == [*range(30), *range(70, 100)]
    assert max(off(one, frames[one.frame]) for one in found) < 0.05
    assert decoder.assembler.counts.missing == 40


def test_a_stream_is_read_from_its_middle_and_around_its_end(quiet, frames):
    encoder = quiet.encoder(16)
    encoder.frame = 2**32 - 3
    decoder = SkinDecoder(quiet, encoder)
    found = [one for k in range(6) for one in read(decoder, sent(encoder, frames[k]))]
    assert [one.frame for one in found] == [2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1, 2]
    assert max(off(one, frames[k]) for k, one in enumerate(found)) < 5e-3
    # And after hours without a frame what was touched says nothing any more.
    encoder.frame = 100
    (last,) = read(decoder, sent(encoder, frames[400]))
    assert off(last, frames[400]) < 5e-3


def test_blocks_by_patch_are_read_each_by_itself(layout, frames):
    profile = SkinProfile.fit(frames[QUIET], layout, noise=0.0, codes=[FEET, HAND])
    encoder = profile.encoder(16)
    decoder = SkinDecoder(profile, encoder)
    for k in range(4):
        (found,) = read(decoder, sent(encoder, frames[k]))
        assert off(found, frames[k]) < 5e-3
        assert found.explained.tolist() == [True] * 3
    # Nothing comes of the hand: it is as it is expected to be, and no other part is worse for it.
    codes = encoder.encode(frames[4])
    found = read(decoder, [p for c in codes if c.block != 1 for p in packets_of(c, encoder.stream)])
    found += decoder.flush()
    (found,) = found
    assert found.heard.tolist() == [True, False, True]
    assert found.explained.tolist() == [True, False, True]
    x, hand = frames[4].reshape(-1, 3), profile.blocks()[1]
    assert np.linalg.norm((found.x - x)[hand]) < 0.2 * np.linalg.norm(x[hand])
    others = np.setdiff1d(np.arange(layout.n_taxels), hand)
    assert np.linalg.norm((found.x - x)[others]) < 5e-3 * np.linalg.norm(x)
    assert found.variance[hand].sum() > 10 * found.variance[others].sum()


def test_a_code_that_is_far_too_short_is_not_explained_and_says_so(quiet, frames):
    """At 400:1 nothing can be read. No frame claims to be explained with a small error while it is wrong."""
    for ratio in (64, 128, 400):
        encoder = quiet.encoder(ratio)
        for memory in (True, False):
            decoder = SkinDecoder(quiet, encoder, memory=memory)
            explained = []
            for k in range(230, 430, 5):
                (found,) = read(decoder, sent(encoder, frames[k]))
                error = off(found, frames[k])
                explained.append(found.explained.all())
                assert error < 0.1 or not found.explained.all() or found.expected_error > 0.3 * error
                if not memory and error > 0.3:
                    assert not found.explained.all()
            if ratio == 400:
                assert not any(explained[1:]), memory


def test_more_rows_rescue_a_frame(quiet, frames):
    encoder = quiet.encoder(128)
    decoder = SkinDecoder(quiet, encoder, memory=False)
    for k in (10, 300):
        (found,) = read(decoder, sent(encoder, frames[k]))
        assert not found.explained.all()
        assert off(found, frames[k]) > 0.1
        rounds = 0
        while not found.explained.all():
            rounds += 1
            (asked,) = decoder.requests(found, share=0.5)
            assert (asked.frame, asked.block, asked.start) == (found.frame, 0, 48 + 48 * rounds)
            more = encoder.more(asked.frame, asked.block, asked.start, asked.count)
            (found,) = read(decoder, packets_of(more, encoder.stream))
            assert rounds < 20
        assert off(found, frames[k]) < 0.01
        assert decoder.requests(found) == []


def test_more_rows_of_a_frame_do_not_spoil_those_after_it(quiet, frames):
    encoder = quiet.encoder(16)
    decoder = SkinDecoder(quiet, encoder)
    for k in range(3):
        read(decoder, sent(encoder, frames[k]))
    # Of frames before the last they come too late.
    assert read(decoder, packets_of(encoder.more(1, 0, 768, 96), encoder.stream)) == []
    (again,) = read(decoder, packets_of(encoder.more(2, 0, 768, 96), encoder.stream))
    assert again.frame == 2
    assert off(again, frames[2]) < 5e-3
    # Rows that overlap are read once.
    (again,) = read(decoder, packets_of(encoder.more(2, 0, 800, 96), encoder.stream))
    assert off(again, frames[2]) < 5e-3
    late = [Reading(1, 0, np.arange(768, 800), np.zeros(32, np.int32), 0)]
    with pytest.raises(ValueError, match="more rows of frame 1; allowed: of 2"):
        decoder.decode(late)
    (found,) = read(decoder, sent(encoder, frames[3]))
    assert found.frame == 3
    assert off(found, frames[3]) < 5e-3
    assert decoder.assembler.counts.late == 0
    # The frame after is read as one frame after the last, not after the one that was read again.
    assert decoder.blocks[0]._age == 0
    assert decoder._frame == 3


def test_a_sender_that_begins_anew_twice_is_read(quiet, frames):
    encoder = quiet.encoder(16)
    decoder = SkinDecoder(quiet, encoder)
    for start, count in ((0, 100), (5000, 8), (90, 12)):
        encoder.frame = start
        for k in range(count):
            found = read(decoder, sent(encoder, frames[k]))
    assert off(found[-1], frames[11]) < 5e-3


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_rounding_that_repeats_is_not_averaged_away(quiet, frames, bits):
    encoder = quiet.encoder(16, bits=bits)
    decoder = SkinDecoder(quiet, encoder)
    for _ in range(60):
        (found,) = read(decoder, sent(encoder, frames[0]))
        assert not found.explained.all() or off(found, frames[0]) < 2.5 * found.expected_error + 1e-3


def test_a_frame_that_was_cut_is_not_explained(quiet, frames):
    encoder = quiet.encoder(16)
    decoder = SkinDecoder(quiet, encoder)
    (found,) = read(decoder, sent(encoder, 1e6 * frames[0]))
    assert encoder.clipped == 1
    assert not found.explained.any()
    (found,) = read(decoder, sent(encoder, frames[1]))
    assert found.explained.all()
    assert off(found, frames[1]) < 5e-3
    # One number beyond all counts is cut, too.
    huge = np.zeros_like(frames[0])
    huge.flat[0] = 1e9
    (found,) = read(decoder, sent(encoder, huge))
    assert not found.explained.any()


def test_requests_end_where_the_transform_does(quiet, frames):
    encoder = quiet.encoder(1.001)
    decoder = SkinDecoder(quiet, encoder)
    (found,) = read(decoder, sent(encoder, frames[0]))
    unexplained = type(found)(**{**vars(found), "explained": np.zeros(1, dtype=bool)})
    (asked,) = decoder.requests(unexplained)
    assert asked.start + asked.count == 12288
    silent = type(found)(**{**vars(unexplained), "heard": np.zeros(1, dtype=bool)})
    assert decoder.requests(silent) == []
    with pytest.raises(ValueError, match="share is 2"):
        decoder.requests(found, share=2)


def test_stuck_taxels_are_known_and_others_read_beside_them(layout, frames, rng):
    stuck = {2000: [1.5, 0.2, 0], 3000: [0.8, 0, -0.3]}

    def with_stuck(frame):
        x = frame.reshape(-1, 3).copy()
        for taxel, value in stuck.items():
            x[taxel] = value
        return x.reshape(-1)

    rows = np.stack([with_stuck(frame) for frame in frames[QUIET]])
    profile = SkinProfile.fit(Frames(rows), layout, noise=0.0)
    assert np.flatnonzero(profile.dead).tolist() == [2000, 3000]
    encoder = profile.encoder(16)
    decoder = SkinDecoder(profile, encoder)
    for k in range(0, 40, 4):
        (found,) = read(decoder, sent(encoder, with_stuck(frames[k])))
        assert off(found, with_stuck(frames[k])) < 5e-3
        assert found.explained.all()
        assert found.x[2000] == pytest.approx(stuck[2000], abs=1e-3)
        # It says nothing of touch.
        assert found.active[[2000, 3000]].tolist() == [0, 0]


def test_a_taxel_that_dies_later_is_found_to_be_off(quiet, frames):
    """It was always touched, and reads nothing now: the code says so."""
    taxel = int(quiet.p.argmax())
    encoder = quiet.encoder(16)
    decoder = SkinDecoder(quiet, encoder)
    for k in range(10):
        x = frames[k].reshape(-1, 3).copy()
        if k >= 5:
            x[taxel] = 0
        (found,) = read(decoder, sent(encoder, x.reshape(-1)))
        assert off(found, x.reshape(-1)) < 5e-3
    assert found.active[taxel] < 0.1


def test_a_taxel_that_is_pulled_is_read_as_it_is(quiet, frames):
    x = frames[10].reshape(-1, 3).copy()
    taxel = int(quiet.p.argmax())
    x[taxel] = [-6, 5, 4]
    encoder = quiet.encoder(16)
    (found,) = read(SkinDecoder(quiet, encoder), sent(encoder, x.reshape(-1)))
    assert off(found, x.reshape(-1)) < 5e-3


def test_pressure_alone_is_read_and_never_negative(layout, frames, rng):
    flat = layout.without_shear()
    rows = np.stack([frame[::3] for frame in frames[:200:2]]).clip(0)
    profile = SkinProfile.fit(Frames(rows), flat, noise=0.03)
    encoder = profile.encoder(16)
    decoder = SkinDecoder(profile, encoder)
    for row in rows:
        (found,) = read(decoder, sent(encoder, felt(row, 0.03, rng)))
        assert found.x.shape == (4096, 1)
        assert found.x.min() >= 0
        assert off(found, row) < 0.05


def test_nothing_touched_is_read_as_nothing(noisy, frames, rng):
    encoder = noisy.encoder(16)
    decoder = SkinDecoder(noisy, encoder)
    read(decoder, sent(encoder, felt(frames[0], 0.03, rng)))
    for k in range(10):
        (found,) = read(decoder, sent(encoder, felt(0 * frames[0], 0.03, rng)))
        if k:
            assert np.abs(found.x).max() < 0.09
            assert found.explained.all()


def test_only_readings_of_one_frame_are_decoded_together(quiet):
    decoder = SkinDecoder(quiet, quiet.encoder(16))
    one, other = (Reading(k, 0, np.arange(5), np.zeros(5, np.int32), 0) for k in (1, 2))
    with pytest.raises(ValueError, match="readings are of 2 frames"):
        decoder.decode([one, other])
    with pytest.raises(ValueError, match="readings are of 0 frames"):
        decoder.decode([])


def test_profile_and_encoder_are_of_one_skin(quiet):
    with pytest.raises(ValueError, match="allowed with this profile: Layout"):
        SkinDecoder(quiet, SkinEncoder(100, 10))
    with pytest.raises(ValueError, match="profile is 3"):
        SkinDecoder(3, quiet.encoder(16))
    assert repr(SkinDecoder(quiet, quiet.encoder(16), memory=False)) == (
        "SkinDecoder(SkinEncoder(4096, 768, axes=3, bits=12, seed=0), memory=False)"
    )


def test_packets_of_others_are_left_out(quiet, frames):
    encoder, other = quiet.encoder(16), quiet.encoder(16, seed=1)
    decoder = SkinDecoder(quiet, encoder)
    assert read(decoder, sent(other, frames[0])) == []
    assert read(decoder, [b"", b"Pr", bytes(60)]) == []
    (found,) = read(decoder, sent(encoder, frames[0]))
    assert off(found, frames[0]) < 5e-3
    counts = decoder.assembler.counts
    assert (counts.foreign, counts.damaged) == (1, 3)


def test_a_mat_of_one_taxel_is_a_skin(rng):
    mat = Layout.plane(1, 1, 0.01)
    rows = np.abs(rng.normal(3, 1, (50, 1))).astype(np.float32) * (rng.random((50, 1)) < 0.5)
    profile = SkinProfile.fit(Frames(rows), mat, noise=0.0)
    encoder = profile.encoder(1)
    decoder = SkinDecoder(profile, encoder)
    for row in rows:
        (found,) = read(decoder, sent(encoder, row))
        assert found.x[0, 0] == pytest.approx(row[0], abs=0.01)


def test_noise_is_not_taken_for_more_and_more_touch():
    """A blob that moves over a mat, with noise, at a code hardly long enough."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    places = [(16 + 9 * np.cos(k / 20), 16 + 9 * np.sin(k / 20)) for k in range(500)]
    rows = np.array([5 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in places]).reshape(500, -1)
    rows[rows < 0.05] = 0
    profile = SkinProfile.fit(Frames(rows[:300]), Layout.plane(32, 32, 0.01), noise=0.03)
    encoder = profile.encoder(4)
    decoder = SkinDecoder(profile, encoder)
    for row in rows[300:].astype(np.float32):
        (found,) = read(decoder, sent(encoder, felt(row, 0.03, rng)))
        assert off(found, row) < 0.15
        assert off(found, row) < 2 * found.expected_error
