"""The law of a stream against streams of frames that are drawn as it says, through the code itself."""

import numpy as np
import pytest

from persianrug.skin import Layout, SkinDecoder, SkinProfile, packets_of, predict
from persianrug.skin.law import _drawn

PACKETS, SEEDS, FRAMES = 8, 12, 40


def profile_of(rng, axes=3, p=0.02, noise=0.0, leave=0.05, codes=(), rows=16, cols=32):
    whole = Layout.plane(rows, cols, 0.01, axes=axes)
    n = whole.n_taxels
    halves = (np.arange(n) >= n // 2).astype(int)
    layout = Layout(
        whole.position, whole.normal, whole.area, halves, ("left", "right"), ("mat", "mat"), whole.tangents
    )
    mean = np.concatenate([rng.uniform(2, 4, (n, 1)), rng.normal(0, 0.5, (n, axes - 1))], axis=1)
    variance = np.tile([1.0, 0.3, 0.3][:axes], (n, 1))
    return SkinProfile(
        layout,
        rng.uniform(0.2, 1.8, n) * p,
        mean,
        variance,
        leave,
        np.array([0.0, 0.02, 0.05]),
        noise,
        codes=codes,
    )


def measured(profile, encoder, loss, memory, seed, frames=FRAMES, skipped=8):
    """As `predict` has it: relative error of all frames, shares within 1% and 5%, share explained."""
    draw = np.random.default_rng(1000 + seed)
    decoder = SkinDecoder(profile, encoder, memory=memory)
    layout = profile.layout
    true, told = {}, {}

    def take(found):
        told.update({one.frame: one for one in found})

    for x in _drawn(profile, np.arange(layout.n_taxels), frames, draw):
        y = x + np.float32(profile.noise) * draw.standard_normal(x.shape, dtype=np.float32)
        true[encoder.frame] = x
        for code in encoder.encode(y):
            for packet in packets_of(code, encoder.stream, PACKETS):
                if draw.random() >= loss:
                    take(decoder.step(packet))
    take(decoder.flush())
    lost, energy, explained = [], [], []
    for number in list(true)[skipped:]:
        if number in told:
            lost.append(float(np.square(told[number].x - true[number]).sum()))
            energy.append(float(np.square(true[number]).sum()))
            explained.append(bool(told[number].explained.all()))
    lost, energy = np.array(lost), np.array(energy)
    errors = np.sqrt(lost / energy)
    return (lost.sum() / energy.sum()) ** 0.5, (errors <= 0.01).mean(), (errors <= 0.05).mean(), np.mean(explained)


def both(profile, ratio, loss=0.0, memory=True, seeds=SEEDS, bits=12, frames=FRAMES):
    """Means (2, 4) of the law and of what is measured, over seeds, and their standard errors."""
    found = []
    for seed in range(seeds):
        encoder = profile.encoder(ratio, bits=bits, seed=seed)
        law = predict(profile, encoder, packet_loss=loss, packets=PACKETS, memory=memory, frames=frames, seed=seed)
        law = law.error, law.within_1_percent, law.within_5_percent, law.explained
        found.append((law, measured(profile, encoder, loss, memory, seed, frames)))
    found = np.array(found)
    return found.mean(axis=0), found.std(axis=0, ddof=1) / seeds**0.5


@pytest.mark.parametrize(
    ("ratio", "loss", "memory", "changed"),
    [
        (8, 0.05, True, {"noise": 0.03}),
        (8, 0.05, False, {"noise": 0.03}),
        (4, 0.0, True, {"noise": 0.3}),
        (4, 0.0, False, {"noise": 0.3}),
        (12, 0.2, True, {"noise": 0.1}),
        (12, 0.0, False, {"noise": 0.01}),
        (24, 0.0, True, {"noise": 0.03}),
        (8, 0.6, True, {"noise": 0.03}),
        (1, 0.0, False, {"noise": 0.03}),
        (8, 0.05, True, {"noise": 0.03, "axes": 1}),
        (8, 0.05, True, {"noise": 0.03, "leave": 0.5}),
        (6, 0.05, True, {"noise": 0.03, "codes": (("left",),)}),
        (8, 0.0, False, {"noise": 0.03, "rows": 15, "cols": 29}),
    ],
)
def test_the_law_is_what_is_measured(rng, ratio, loss, memory, changed):
    """Within the standard errors of both, and 2% of what finite sizes and rounding do."""
    (law, found), errors = both(profile_of(rng, **changed), ratio, loss, memory)
    error = np.hypot(*errors)
    assert law[0] > 0.001
    assert np.all(np.abs(found - law) <= 3 * error + [0.02 * law[0], 0.01, 0.01, 0.01]), (law, found, error)
    # It says something: it is known to a fifth, but where some frames fail and others do not.
    assert law[3] < 0.999 or error[0] < 0.2 * law[0]


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_rounding_to_few_bits_is_noise(rng, bits):
    (law, found), errors = both(profile_of(rng), 6, memory=False, bits=bits)
    assert abs(found[0] - law[0]) <= 3 * np.hypot(*errors)[0] + 0.1 * law[0]
    fine, _ = both(profile_of(rng), 6, memory=False, bits=bits + 2, seeds=4)
    assert law[0] > 2.5 * fine[0][0]


@pytest.mark.parametrize("memory", [True, False])
def test_without_noise_frames_are_exact_by_law_and_measurement(rng, memory):
    (law, found), _ = both(profile_of(rng), 8, memory=memory)
    assert law.tolist()[1:] == found.tolist()[1:] == [1, 1, 1]
    assert max(law[0], found[0]) < 3e-3


def test_a_code_that_is_far_too_short_fails_by_law_and_measurement(rng):
    (law, found), _ = both(profile_of(rng, p=0.1), 40, memory=False, seeds=4)
    assert law[3] < 0.2
    assert found[3] < 0.2
    assert law[0] == pytest.approx(found[0], rel=0.2)
    assert law[0] > 0.5


def test_frames_are_drawn_as_the_profile_says(rng):
    profile = profile_of(rng, p=0.1, leave=0.1)
    drawn = np.stack(list(_drawn(profile, np.arange(512), 400, rng)))
    on = (drawn != 0).any(axis=2)
    assert on.mean() == pytest.approx(profile.p.mean(), rel=0.05)
    assert (on[:-1] & ~on[1:]).sum() / on[:-1].sum() == pytest.approx(0.1, rel=0.05)
    assert drawn[on].mean(axis=0)[0] == pytest.approx(3, abs=0.1)
    both_on = on[1:] & on[:-1]
    moved = np.square(drawn[1:] - drawn[:-1])[both_on].sum() / np.square(drawn[1:])[both_on].sum()
    assert moved == pytest.approx(np.square(profile.change).mean(), rel=0.3)
    # The first frames are as all others.
    assert on[:20].mean() == pytest.approx(on[-20:].mean(), rel=0.15)


def test_what_is_never_touched_is_exact():
    mat = Layout.plane(8, 8, 0.01)
    profile = SkinProfile(mat, np.zeros(64), np.ones((64, 1)), np.ones((64, 1)), 0.1, np.zeros(1), noise=0.03)
    told = predict(profile, profile.encoder(4))
    assert (told.error, told.within_1_percent, told.within_5_percent) == (0, 1, 1)


def test_the_same_seed_gives_the_same_law(rng):
    profile = profile_of(rng, noise=0.03)
    encoder = profile.encoder(8)
    assert predict(profile, encoder, frames=32) == predict(profile, encoder, frames=32)
    assert predict(profile, encoder, frames=32) != predict(profile, encoder, frames=32, seed=1)


def test_arguments_are_checked(rng):
    profile = profile_of(rng)
    encoder = profile.encoder(8)
    for arguments, said in [
        ({"packet_loss": 1.0}, "packet_loss is 1; allowed: from 0 to below 1"),
        ({"packet_loss": -0.1}, "packet_loss is -0.1"),
        ({"packet_loss": np.nan}, "packet_loss is nan"),
        ({"packets": 0}, "packets is 0"),
        ({"frames": 15}, "frames is 15"),
        ({"seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(ValueError, match=said):
            predict(profile, encoder, **arguments)
    with pytest.raises(ValueError, match="profile is 3"):
        predict(3, encoder)
    with pytest.raises(ValueError, match="encoder is 3"):
        predict(profile, 3)
