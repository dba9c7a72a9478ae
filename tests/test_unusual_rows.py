"""Rows of kinds that are rare: read for what they are, or refused in one line, with nothing lost on the way."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

import persianrug as pr

rng = np.random.default_rng(0)
# Multiples of 1/8, which all types of numbers hold.
ROWS = np.where(rng.random((64, 16)) < 0.3, rng.integers(1, 9, (64, 16)), 0) / 8
TENSOR = torch.from_numpy(ROWS)
SOURCE = pr.SparseUniform(0.3)
RUG = pr.Rug(16, 8)
MODEL = pr.Autoencoder(RUG, pr.ReLU()).tune(SOURCE)
LOUD = pr.Autoencoder(RUG, pr.ReLU(), gains=np.linspace(1, 2, 16)).tune(SOURCE)
OAMP = pr.Autoencoder(RUG, pr.OAMP()).tune(SOURCE)
SKETCH = pr.Sketch(pr.SparseUniform(np.full(16, 0.3)), RUG, decoder="relu")
SKETCHER = pr.Sketcher(0.5).fit(ROWS)
NETWORK = pr.networks.train(pr.networks.Training(16, 8, SOURCE, steps=1, batch=4)).network
CODES = MODEL.encode(ROWS)


def fitted(rows):
    fitter = pr.ProfileFitter(16)
    fitter.add(rows)
    return fitter.profile().source.p


# Of float32 and float64 alone.
STRICT = {
    "encode": MODEL.encode,
    "encode with gains": LOUD.encode,
    "Rug.encode": RUG.encode,
    "Dense.encode": pr.Dense(RUG.W_in()).encode,
    "autoencoder": MODEL,
    "network": NETWORK,
    "Network.encode": NETWORK.encode,
}
# Of all types of real numbers.
WIDE = {
    "measure": lambda rows: MODEL.measure(rows, dtype=torch.float64).losses,
    "trace": OAMP.trace,
    "Sketch.encode": SKETCH.encode,
    "laws_on": SKETCH.laws_on,
    "Sketcher.fit": lambda rows: pr.Sketcher(0.5).fit(rows).profile_.source.p,
    "Sketcher.partial_fit": lambda rows: pr.Sketcher(0.5).partial_fit(rows).profile_.source.p,
    "Sketcher.transform": SKETCHER.transform,
    "ProfileFitter": fitted,
    "SparseTruncatedNormal.fit": lambda rows: pr.SparseTruncatedNormal.fit(rows).p,
    "Empirical.fit": lambda rows: pr.Empirical.fit(rows).p,
    "FeatureMoments": lambda rows: pr.sources.FeatureMoments.of(rows).means,
}
DECODERS = {
    "decode": MODEL.decode,
    "decode with gains": LOUD.decode,
    "readout": RUG.readout,
    "adjoint": RUG.adjoint,
    "estimate": RUG.estimate,
    "Codes": lambda z: pr.Codes(z, RUG),
}


def unreadable(rows):
    """What holds no real numbers, or not all of them."""
    tensor = torch.from_numpy(rows)
    with warnings.catch_warnings(action="ignore"):
        # PyTorch warns of these kinds themselves.
        csr = tensor.to_sparse_csr()
        quantized = torch.quantize_per_tensor(tensor.float(), 0.125, 0, torch.quint8)
    return {
        "masked": np.ma.masked_array(rows, rows > 0.5),
        "masked nowhere": np.ma.masked_array(rows),
        "complex": rows + 0j,
        "complex tensor": tensor + 0j,
        "structured": np.zeros(rows.shape, dtype=[("a", "f8")]),
        "dates": np.zeros(rows.shape, dtype="M8[s]"),
        "texts": rows.astype(str),
        "sparse tensor": tensor.to_sparse(),
        "csr tensor": csr,
        "mkldnn": tensor.float().to_mkldnn(),
        "quantized": quantized,
        "ragged": [[1], [2, 3]],
        "text": "abc",
    }  # fmt: skip


@pytest.mark.parametrize("name", STRICT | WIDE)
def test_what_cannot_be_read_is_refused(name):
    wrong = unreadable(ROWS)
    if name in WIDE:
        # The others do the same on every device, that without content included.
        wrong["without content"] = TENSOR.to("meta")
    for rows in wrong.values():
        with pytest.raises(ValueError, match="; allowed") as caught:
            (STRICT | WIDE)[name](rows)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", DECODERS | {"inverse_transform": SKETCHER.inverse_transform})
def test_codes_that_cannot_be_read_are_refused(name):
    for codes in unreadable(CODES).values():
        with pytest.raises(ValueError, match="; allowed") as caught:
            (DECODERS | {"inverse_transform": SKETCHER.inverse_transform})[name](codes)
        assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_read_are_refused():
    for weights in unreadable(ROWS.T.copy()).values():
        for take in (pr.Dense, lambda w: pr.Dense(np.ones((16, 64)), w), lambda w: pr.knots.Knot("knot", w)):
            with pytest.raises(ValueError, match="; allowed"):
                take(weights)
        for place in range(3):
            parts = [np.ones((64, 16)), np.ones((16, 64)), np.ones(64)]
            parts[place] = weights
            with pytest.raises(ValueError, match="; allowed"):
                pr.measure_symmetry(*parts)


@pytest.mark.parametrize("name", WIDE)
def test_numbers_of_every_type_are_themselves(name):
    take, expected = WIDE[name], WIDE[name](ROWS)
    wholes = WIDE[name](ROWS * 8)
    for rows in (
        ROWS.astype(np.float16), ROWS.astype(np.longdouble), ROWS.astype(">f8"), ROWS.view(np.matrix),
        TENSOR.half(), TENSOR.bfloat16(), TENSOR.clone().requires_grad_(), scipy.sparse.coo_array(ROWS),
        scipy.sparse.dok_array(ROWS),
    ):  # fmt: skip
        assert np.allclose(take(rows), expected, rtol=1e-5, atol=1e-5)
    for kind in (np.int8, np.uint64, np.int32):
        assert np.allclose(take((ROWS * 8).astype(kind)), wholes, rtol=1e-5, atol=1e-5)
        assert np.allclose(take(scipy.sparse.csr_array((ROWS * 8).astype(kind))), wholes, rtol=1e-5, atol=1e-5)
    assert np.allclose(take((TENSOR * 8).long()), wholes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STRICT)
def test_where_other_floats_are_refused_they_are_named(name):
    others = {"float16": ROWS.astype(np.float16), "torch.bfloat16": TENSOR.bfloat16(), "bool": TENSOR > 0}
    for kind, rows in others.items():
        with pytest.raises(ValueError, match=rf"has dtype .*{kind}; allowed: .*float32, .*float64"):
            STRICT[name](rows)


def test_codes_of_other_types_decode_to_the_same():
    codes = SKETCHER.transform(ROWS)
    expected = SKETCHER.inverse_transform(codes)
    for given in (codes.tolist(), torch.from_numpy(codes), torch.from_numpy(codes).requires_grad_()):
        assert np.allclose(SKETCHER.inverse_transform(given), expected)
    with pytest.raises(ValueError, match="X is a sparse matrix; allowed: an array of codes"):
        SKETCHER.inverse_transform(scipy.sparse.csr_array(codes))


def test_where_codes_are_due_arrays_are_refused(tmp_path):
    for decode in (SKETCH.decode, SKETCHER.decode):
        with pytest.raises(ValueError, match="codes is a ndarray; allowed: Codes"):
            decode(CODES)
    with pr.RugWriter(tmp_path / "a.rug", SKETCH) as writer:
        with pytest.raises(ValueError, match="codes is a ndarray; allowed: Codes"):
            writer.write(CODES)
        writer.write(SKETCH.encode(ROWS))
