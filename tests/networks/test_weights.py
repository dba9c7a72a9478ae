"""Files of weights: read exactly, of every kind, or refused."""

import contextlib
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

import persianrug as pr
from persianrug.networks import weights as files
from persianrug.networks.symmetry import measure_symmetry
from persianrug.networks.weights import read_weights
from tests.conftest import forged_header, saved
from tests.networks.helpers import W_IN, W_OUT

RNG = np.random.default_rng(0)
BIAS = np.linspace(-1, 0, 16)


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_weights_are_read(name, tmp_path):
    for bias in ("bias", "b"):
        path = write(tmp_path / name, W_in=W_IN, W_out=W_OUT, other=np.zeros(3), **{bias: BIAS})
        found = read_weights(path)
        assert all(part.dtype == torch.float64 for part in found)
        assert all(np.array_equal(*pair) for pair in zip(found, (W_OUT, W_IN, BIAS), strict=True))
    path = write(tmp_path / name, W_in=W_IN.astype(np.float16), W_out=np.ones((16, 4), np.int64))
    W_out, W_in, offsets = read_weights(str(path))
    assert np.array_equal(W_in, W_IN)
    assert np.array_equal(W_out, np.ones((16, 4)))
    assert np.array_equal(offsets, np.zeros(16))


def test_arrays_of_any_layout_and_compressed_ones_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", W_in=np.asfortranarray(W_IN), W_out=W_OUT.astype(">f8"))
    W_out, W_in, _ = read_weights(tmp_path / "a.npz")
    assert np.array_equal(W_in, W_IN)
    assert np.array_equal(W_out, W_OUT)
    tensors = {"W_in": torch.from_numpy(W_IN).bfloat16(), "W_out": torch.from_numpy(W_OUT).bfloat16()}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    assert np.array_equal(read_weights(tmp_path / "a.safetensors")[1], W_IN)


@pytest.mark.parametrize("decoder", [pr.ReLU, pr.Linear])
@pytest.mark.parametrize("differ", [False, True])
@pytest.mark.parametrize("kind", ["rug", "dense"])
def test_a_saved_model_is_the_same_function(decoder, differ, kind, tmp_path):
    n = 24
    rng = np.random.default_rng(2)
    encoder = pr.Rug(n, 8) if kind == "rug" else pr.Dense(rng.normal(size=(8, n)), rng.normal(size=(n, 8)))
    gain, bias, mean, gains = rng.uniform(0.5, 1.5, size=(4, n)) if differ else (1.3, -0.2, 0.1, 2.0)
    model = pr.Autoencoder(encoder, decoder(gain, bias), mean, gains=gains)
    model.save(tmp_path / "a.safetensors")
    W_out, W_in, offsets = read_weights(tmp_path / "a.safetensors")
    x = pr.SparseUniform(0.3).sample(50, n, seed=0, dtype=torch.float64)
    pre = x @ W_in.T @ W_out.T + offsets
    assert torch.allclose(pre.relu() if decoder is pr.ReLU else pre, model(x), atol=1e-12)


def test_a_tuned_model_of_the_paper_is_rug_like(tmp_path):
    source = pr.SparseUniform(0.3)
    pr.Autoencoder(pr.Rug(512, 128), pr.ReLU()).tune(source).save(tmp_path / "a.safetensors")
    found = measure_symmetry(*read_weights(tmp_path / "a.safetensors"), source)
    assert found.verdict == "rug-like"
    assert found.offset_variance < 1e-20


def test_models_of_other_decoders_or_too_large_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    pr.Autoencoder(pr.Rug(16, 4), pr.JumpReLU()).save(path)
    with pytest.raises(ValueError, match="its decoder is jumprelu; allowed: linear, relu"):
        read_weights(path)
    pr.Autoencoder(pr.Rug(1 << 20, 1 << 18), pr.ReLU()).save(path)
    with pytest.raises(ValueError, match="allowed: at most 2\\^27 entries"):
        read_weights(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1048576", b"1048577"))
    with pytest.raises(ValueError, match="is damaged"):
        read_weights(path)


GOOD = {"W_in": saved(W_IN), "W_out": saved(W_OUT), "bias": saved(BIAS)}


@pytest.mark.parametrize(
    ("replaced", "word"),
    [
        ({"W_in": None}, "it has no W_in; allowed: W_in, W_out and bias or b"),
        ({"W_in": None, "W_out": None}, "it has no W_in and no W_out"),
        ({"b": saved(BIAS)}, "both bias and b; allowed: one of them"),
        ({"W_in": saved(np.array([[None, 1]] * 4, dtype=object), allow_pickle=True)}, "cannot be read"),
        ({"W_in": saved(W_IN.astype(object), allow_pickle=True)}, "cannot be read"),
        ({"W_in": saved(W_IN.astype(complex))}, "of type complex128"),
        ({"W_in": saved(W_IN.astype(str))}, "of type <U"),
        ({"W_in": saved(W_IN[0])}, r"W_in has shape \(16,\)"),
        ({"W_in": saved(np.float64(1))}, r"W_in has shape \(\)"),
        ({"W_in": saved(W_OUT), "W_out": saved(W_IN)}, r"W_in has shape \(16, 4\); .* the wrong way round\?"),
        ({"W_out": saved(W_IN)}, r"W_out has shape \(4, 16\); allowed: \(16, 4\)"),
        ({"bias": saved(BIAS[:-1])}, r"bias has shape \(15,\)"),
        ({"W_in": saved(W_IN * np.nan)}, "W_in holds NaN or infinity"),
        ({"W_in": saved(W_IN)[:-1]}, "not the size that its header says"),
        ({"W_in": saved(W_IN)[:30]}, "cannot be read"),
        ({"W_in": b""}, "cannot be read"),
        ({"W_in": forged_header((10**9, 10**9))}, "not the size that its header says"),
        ({"W_in": forged_header((-2, -4))}, "cannot be read"),
    ],
)
def test_bad_npz_files_are_refused(replaced, word, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in (GOOD | replaced).items():
            if content is not None:
                archive.writestr(f"{name}.npy", content)
    refused(tmp_path / "a.npz", word)


def refused(path, word="cannot be read"):
    with pytest.raises(ValueError, match=word) as caught:
        read_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "allowed: " in message
    assert str(path) in message


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_damaged_files_are_refused(name, tmp_path):
    path = write(tmp_path / name, W_in=W_IN, W_out=W_OUT, bias=BIAS)
    content = path.read_bytes()
    refused(tmp_path / f"missing{name}")
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        refused(path)
    for text in (b"hello", b"", b"\x80\x04]q\x00.", b"PK\x03\x04" + bytes(50)):
        path.write_bytes(text)
        refused(path)
    path.unlink()
    path.mkdir()
    refused(path, "cannot be read: it is not a regular file")


@pytest.mark.parametrize(
    ("replaced", "word"),
    [
        ({"W_in": W_OUT, "W_out": W_IN}, r"W_in has shape \(16, 4\); .* the wrong way round\?"),
        ({"W_in": W_IN * np.inf}, "W_in holds NaN or infinity"),
        ({"W_in": W_IN.astype(np.complex64)}, "of type torch.complex64"),
        ({"W_in": W_IN[:, :5]}, r"W_out has shape \(16, 4\); allowed: \(5, 4\)"),
        ({"b": BIAS}, "both bias and b"),
    ],
)
def test_bad_safetensors_files_are_refused(replaced, word, tmp_path):
    arrays = {"W_in": W_IN, "W_out": W_OUT, "bias": BIAS} | replaced
    refused(write(tmp_path / "a.safetensors", **arrays), word)
    refused(write(tmp_path / "a.safetensors", W_in=W_IN), "it has no W_out")


def test_flipped_bytes_make_no_other_error(tmp_path):
    for name in ("a.npz", "a.safetensors"):
        path = write(tmp_path / name, W_in=W_IN, W_out=W_OUT)
        content = path.read_bytes()
        for place in RNG.integers(len(content), size=150):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
            with contextlib.suppress(ValueError):
                read_weights(path)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_matrices_that_are_too_large_are_refused_before_they_are_read(name, tmp_path, monkeypatch):
    path = write(tmp_path / name, W_in=np.zeros((4, 20000)), W_out=np.zeros((20000, 4)))
    monkeypatch.setattr(files, "_MOST_ENTRIES", 60000)
    refused(path, "allowed: (at most )?2\\^27 entries")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W_in.npy", forged_header((4, 200000))[:-64] + bytes(4 * 200000 * 8))
        archive.writestr("W_out.npy", GOOD["W_out"])
    refused(tmp_path / "b.npz", "its W_in has 6400.* bytes; allowed: 2\\^27 entries")


@pytest.mark.parametrize("name", ["a.npy", "a.pt", "a"])
def test_other_kinds_of_files_are_refused(name, tmp_path):
    refused(tmp_path / name, "allowed: .npz, .safetensors")


def test_arrays_that_are_packed_to_a_thousandth(tmp_path, monkeypatch):
    # A quarter of a GiB of zeros is read, more of them than a small file may hold is not.
    zeros = np.zeros((512, 512))
    np.savez_compressed(tmp_path / "w.npz", W_in=zeros, W_out=zeros)
    assert read_weights(tmp_path / "w.npz")[0].shape == (512, 512)
    monkeypatch.setattr("persianrug._support.npy._FREELY_UNPACKED", 1 << 20)
    with pytest.raises(
        ValueError, match=r"unpacks to .* bytes, too many for its .* bytes; allowed: up to 1048576"
    ):
        read_weights(tmp_path / "w.npz")
