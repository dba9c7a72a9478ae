"""A robot is data beside its model: nothing else knows its name."""

from pathlib import Path

import pytest

import persianrug
from persianrug.robots.registry import ROBOTS
from persianrug.robots.scene import robot_model

ROOT = Path(persianrug.__file__).parent
# What lists robots: the registry, and the names that the command line offers.
LISTS = {"robots/registry.py", "cli/options.py"}


def named(words, place):
    text = (ROOT / place).read_text()
    return [(place, word) for word in words if f'"{word}"' in text or f"'{word}'" in text]


@pytest.mark.parametrize("name", ROBOTS)
def test_no_file_but_its_own_has_its_name_or_its_joints(name):
    model = robot_model(ROBOTS[name].spec)
    arm = ROBOTS[name].spec.arm
    # A finger is what others may call a finger.
    joints = {model.joint(k).name for k in range(1, model.njnt)} - ({arm.finger} if arm else set())
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(f"robots/{name}/") or place in LISTS:
            continue
        # Other robots may have a knee as well.
        shared = not place.startswith(tuple(f"robots/{other}/" for other in ROBOTS))
        found += named({name, *joints} if shared else {name}, place)
    assert not found
