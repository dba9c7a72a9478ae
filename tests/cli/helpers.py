"""What the tests of sketches on the command line share."""

import json
import re

import persianrug as pr

N, ROWS = 512, 400
SOURCE = pr.SparseTruncatedNormal(pr.zipf_rates(N, 0.05), 0.5, 1.0)
NAMES = [f"gene {place}" for place in range(N)]
FITTED = ("--profile", "profile.json")
MAGIC = b"\x89RUG\r\n\x1a\n"


def ran(result):
    """It went well and said nothing on stderr."""
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def of_json(result):
    return json.loads(ran(result))


def numbers(text, pattern):
    found = re.search(pattern, text)
    assert found, text
    return [float(part) for part in found.groups()]


def files(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}
