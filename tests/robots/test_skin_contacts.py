import mujoco
import numpy as np
import pytest

from persianrug.robots.contacts import TrueContacts
from persianrug.robots.skin_contacts import NothingFelt, SkinContacts
from tests.robots.helpers import CODES, PATCHES, world


def sensor_of(model, **given):
    return SkinContacts(model, PATCHES, **({"codes": CODES, "packet_loss": 0.05, "seed": 1} | given))


def run(sensor, model, data, seconds, steps=2):
    """Readings and true readings of ticks."""
    felt, true = [], []
    for _ in range(round(seconds / steps / model.opt.timestep)):
        mujoco.mj_step(model, data, steps)
        felt.append(sensor.sense(data))
        true.append(sensor.true)
    return felt, true


@pytest.fixture(scope="module")
def fallen():
    """The toy robot, dropped."""
    model, data = world()
    sensor = sensor_of(model)
    return model, sensor, *run(sensor, model, data, 1.2)


def test_truth_and_skin_agree(fallen):
    model, _, felt, true = fallen
    late = [k for k in range(100, len(felt)) if felt[k].time != felt[k - 1].time]
    instant = {round(one.time, 6): one for one in true}
    weight = model.body_mass.sum() * 9.81
    gaps = [felt[k].force - instant[round(felt[k].time, 6)].force for k in late]
    # Gains differ by 3%, and one taxel in a hundred is dead.
    assert np.sqrt(np.square(gaps).sum(axis=2).mean(axis=0)).max() < 0.08 * weight
    assert all(felt[k].valid.all() for k in late)
    touched = instant[round(felt[late[-1]].time, 6)].pressing > 5
    assert touched[:2].all()
    np.testing.assert_allclose(felt[late[-1]].centre[:2], true[-1].centre[:2], atol=0.005)
    assert (felt[late[-1]].area[touched] > 0).all()


def test_statistics_say_what_was_sent_and_how_well_it_was_read(fallen):
    _, sensor, _, _ = fallen
    said = sensor.statistics()
    assert said["ratio"] == pytest.approx(1 / 16, rel=0.01)
    assert said["frames"] == pytest.approx(120, abs=3)
    assert said["packets_lost"] == pytest.approx(0.05, abs=0.03)
    assert said["explained"] > 0.95
    # 12 bits a number, and headers.
    assert said["bytes_per_second"] == pytest.approx(100 * (896 * 3 / 16 * 1.5 + 8 * 22), rel=0.02)
    assert 0.3 < said["force_error_measured"] / said["force_error_predicted"] < 2
    assert said["force_error_of_truth"] >= said["force_error_measured"]
    assert sensor.newest.estimate.x.shape == sensor.frame.shape == (896, 3)


def test_nothing_is_known_before_the_delay():
    model, data = world()
    sensor = sensor_of(model, delay=0.02, packet_loss=0.0)
    felt, _ = run(sensor, model, data, 0.1)
    for tick, one in enumerate(felt):
        now = 0.004 * (tick + 1)
        if now < 0.024 - 1e-6:
            assert not one.valid.any()
            assert one.time == -np.inf
        else:
            assert one.valid.all()
            assert 0.02 - 1e-6 <= now - one.time < 0.02 + 0.012 + 1e-6


def test_a_dead_bus_is_not_believed():
    model, data = world()
    sensor = sensor_of(model)
    run(sensor, model, data, 0.6)
    assert sensor.sense(data).valid.all()
    last = sensor.sense(data).time
    sensor.bus.loss, sensor.bus._bad = 0.999999, True
    felt, _ = run(sensor, model, data, 0.12)
    assert not felt[-1].valid.any()
    # What was felt last is kept.
    assert felt[-1].force.any()
    assert felt[-1].time <= last + 0.02


def test_one_group_of_patches_does_not_hear_of_another_whose_packets_are_lost():
    model, data = world()
    sensor = sensor_of(model, packet_loss=0.0)
    run(sensor, model, data, 0.5)
    send = sensor.bus.send
    # The byte after magic, version, bits, stream and frame is the block.
    sensor.bus.send = lambda t, packet: None if packet[12] == 0 else send(t, packet)
    felt, _ = run(sensor, model, data, 0.2)
    np.testing.assert_array_equal(felt[-1].valid, [False, False, True, True])


def test_where_too_little_is_sent_it_is_not_believed():
    explained = {}
    for ratio in (1 / 4, 1 / 64):
        model, data = world()
        sensor = sensor_of(model, ratio=ratio)
        felt, _ = run(sensor, model, data, 0.8)
        explained[ratio] = sensor.statistics()["explained"]
        assert felt[-1].valid[:2].all() == (ratio == 1 / 4)
    assert explained[1 / 4] > 0.98
    assert explained[1 / 64] < 0.7


def test_the_same_seed_feels_the_same():
    felt = []
    for seed in (4, 4, 5):
        model, data = world()
        felt.append(run(sensor_of(model, seed=seed), model, data, 0.4)[0][-1])
    np.testing.assert_array_equal(felt[0].force, felt[1].force)
    assert (felt[0].force != felt[2].force).any()


def test_the_true_reading_is_of_now():
    model, data = world()
    sensor, truth = sensor_of(model), TrueContacts(model, PATCHES)
    for _ in range(60):
        mujoco.mj_step(model, data, 2)
        sensor.sense(data)
        np.testing.assert_array_equal(sensor.true.force, truth.sense(data).force)
        assert sensor.true.time == data.time


def test_frames_come_at_their_rate():
    model, data = world()
    sensor = sensor_of(model, rate=50.0, delay=0.0)
    felt, _ = run(sensor, model, data, 0.4)
    times = sorted({one.time for one in felt})
    assert len(times) == 20
    # A rate above that of ticks is that of ticks.
    model, data = world()
    sensor = sensor_of(model, rate=1e4, delay=0.0)
    felt, _ = run(sensor, model, data, 0.1)
    assert len({one.time for one in felt}) == 25


def test_dead_taxels_are_filled_in_before_the_code():
    model, data = world()
    sensor = sensor_of(model)
    mujoco.mj_step(model, data, 400)
    sensor.sense(data)
    dead = sensor._flaws.gains == 0
    assert dead.any()
    assert (sensor.frame[dead] != 0).all()
    # The noise of a mean of six is less.
    quiet = ~dead & (np.abs(sensor.frame).max(axis=1) < 0.2)
    assert sensor.frame[quiet].std() == pytest.approx(0.03, rel=0.1)


def test_nothing_felt_is_valid_and_zero():
    model, data = world()
    sensor = NothingFelt(TrueContacts(model, PATCHES))
    mujoco.mj_step(model, data, 500)
    reading = sensor.sense(data)
    assert reading.patches == sensor.patches == ("left", "right", "trunk", "arm")
    assert reading.valid.all()
    assert not reading.force.any()
    assert not reading.pressing.any()
    assert reading.time == data.time


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"skin": "hard"}, "skin is 'hard'"),
        ({"ratio": 0.0}, "ratio is 0"),
        ({"ratio": 2.0}, "ratio is 2"),
        ({"rate": -1.0}, "rate is -1"),
        ({"packet_loss": 1.0}, "loss is 1"),
        ({"delay": -0.1}, "delay is -0.1"),
        ({"codes": (("hand",),)}, "hand"),
        ({"codes": (("left",), ("left",))}, "left"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_mistakes_are_told(given, said):
    with pytest.raises(ValueError, match=said):
        sensor_of(world()[0], **given)
