"""The skin as a sensor, beside the truth."""

import numpy as np
import pytest

from persianrug.robots.contacts import TrueContacts
from persianrug.robots.skin_contacts import NothingFelt, SkinContacts
from persianrug.robots.spot.spec import SPEC
from tests.robots.worlds import Standing

FEET = [f"{leg}_foot" for leg in ("fl", "fr", "hl", "hr")]


def sensor(world, **options):
    return SkinContacts(world.model, SPEC.patches, codes=SPEC.codes, **options)


@pytest.fixture(scope="module")
def world():
    world = Standing()
    world.run(0.5)
    return world


def readings(world, skin, seconds):
    """What skin and truth read, tick by tick, while the robot stands on the truth."""
    felt, true = [], []

    def each(world):
        felt.append(skin.sense(world.data))
        true.append(skin.true)

    world.run(seconds, each)
    return felt, true


def test_it_feels_what_presses(world):
    """16:1, 5% of packets lost: a foot's force within 6 N of the truth, gains and dead taxels and all."""
    skin = sensor(world, seed=1)
    felt, true = readings(world, skin, 0.6)
    feet = [skin.patches.index(name) for name in FEET]
    others = [index for index in range(len(skin.patches)) if index not in feet]
    late = felt[20:]
    error = np.array([one.pressing[feet] for one in late]) - np.array([one.pressing[feet] for one in true[20:]])
    assert np.quantile(np.abs(error), 0.9) < 0.08 * 75
    assert np.abs([one.pressing[others] for one in late]).max() < 1.0
    assert np.mean([one.valid for one in late]) > 0.99
    told = skin.statistics()
    assert told["ratio"] == pytest.approx(1 / 16, rel=0.01)
    assert told["frames"] == pytest.approx(60, abs=3)
    assert told["explained"] > 0.98
    assert told["packets_lost"] == pytest.approx(0.05, abs=0.03)
    # Predicted before measured.
    assert told["force_error_measured"] == pytest.approx(told["force_error_predicted"], rel=0.5)
    assert told["force_error_measured"] < told["force_error_of_truth"]
    assert 100_000 < told["bytes_per_second"] < 200_000


def test_nothing_is_known_before_it_arrives(world):
    skin = sensor(world, delay=0.05, packet_loss=0.0)
    felt, _ = readings(world, skin, 0.2)
    start = world.data.time - 0.2
    for k, reading in enumerate(felt):
        now = start + 0.004 * (k + 1)
        assert reading.time <= now - 0.05 + 1e-6
    assert not felt[0].valid.any()
    assert felt[-1].valid.all()


def test_a_bus_that_dies_is_not_believed(world):
    skin = sensor(world, packet_loss=0.0)
    readings(world, skin, 0.1)
    skin._bus.send = lambda *_: None
    felt, _ = readings(world, skin, 0.15)
    assert felt[0].valid.all()
    assert not felt[-1].valid.any()


def test_dead_taxels_read_nothing(world):
    skin = sensor(world)
    readings(world, skin, 0.05)
    dead = skin._flaws.gains == 0
    assert dead.any()
    assert not skin.frame[dead].any()
    assert skin.frame[~dead].std() > 0.02


def test_same_seed_same_readings(world):
    found = []
    for seed in (0, 0, 5):
        other = Standing()
        felt, _ = readings(other, sensor(other, seed=seed), 0.1)
        found.append(felt[-1].pressing)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_nothing_felt_is_valid_and_zero(world):
    numb = NothingFelt(TrueContacts(world.model, SPEC.patches))
    reading = numb.sense(world.data)
    assert reading.valid.all()
    assert not reading.pressing.any()
    assert not reading.force.any()
    assert reading.time == world.data.time


def test_truth_is_what_the_ground_bears(world):
    """The net force on the feet is the robot's weight, upwards, in the world."""
    reading = TrueContacts(world.model, SPEC.patches).sense(world.data)
    total = np.zeros(3)
    for name, patch in zip(reading.patches, SPEC.patches, strict=True):
        total += world.data.body(patch.body).xmat.reshape(3, 3) @ reading.force[reading.patches.index(name)]
    assert total[2] == pytest.approx(9.81 * world.controller.dynamics.mass, rel=0.03)
    assert np.abs(total[:2]).max() < 15
    feet = [reading.patches.index(name) for name in FEET]
    # Feet are pressed at their lowest points, a radius from their middles.
    for index, foot in zip(feet, SPEC.feet, strict=True):
        middle = world.model.geom(foot.geom).pos
        assert np.linalg.norm(reading.centre[index] - middle) == pytest.approx(0.036, abs=0.004)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skin": "fur"}, "skin is 'fur'; allowed"),
        ({"ratio": 0}, "ratio is 0; allowed"),
        ({"rate": -1}, "rate is -1; allowed"),
        ({"packet_loss": 1.5}, "1.5; allowed"),
        ({"delay": -1}, "-1; allowed"),
    ],
)
def test_bad_input(world, options, message):
    with pytest.raises(ValueError, match=message):
        sensor(world, **options)
