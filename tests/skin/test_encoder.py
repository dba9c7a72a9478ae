import ctypes
import importlib.resources
import re
import shutil
import subprocess

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persianrug.skin import SkinEncoder
from persianrug.skin.paley import paley

MOST = 2**31 - 1


@pytest.fixture(scope="module")
def c_encode(tmp_path_factory):
    """The C function, as a firmware would have it."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("c") / "encode.so"
    source = importlib.resources.files("persianrug.skin") / "encode.c"
    command = ["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared"]
    # Whatever the standard leaves open ends the program.
    command += ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).persianrug_encode

    def encode(encoder, counts, block=0):
        transform = encoder.transforms[block]
        counts = np.ascontiguousarray(counts, dtype=np.int32)
        signs = np.packbits(transform.signs < 0, bitorder="little")
        matrix, order, columns = (
            paley(transform.base).copy(),
            *(part.astype(np.uint16) for part in (transform.order, transform.columns)),
        )
        work, values = np.empty(transform.size, dtype=np.int32), np.empty(encoder.n_dense[block], dtype=np.int16)
        log, clipped = (transform.size // transform.base).bit_length() - 1, ctypes.c_int()
        pointers = [
            part.ctypes.data_as(ctypes.c_void_p) for part in (counts, signs, columns, matrix, order, work, values)
        ]
        counts_, signs_, columns_, matrix_, order_, work_, values_ = pointers
        exponent = function(
            counts_, transform.n, signs_, columns_, transform.base, log, matrix_, order_, len(values),
            encoder.bits, work_, values_, ctypes.byref(clipped),
        )  # fmt: skip
        return values, exponent, bool(clipped.value), work

    return encode


def test_c_function_is_short():
    source = (importlib.resources.files("persianrug.skin") / "encode.c").read_text()
    body = source[source.index("int persianrug_encode") :]
    assert len(body.splitlines()) <= 60
    assert "malloc" not in source


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 17, 24, 33, 100, 192, 300, 640, 1000, 4096, 5000, 12288])
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_c_makes_the_same_bits(c_encode, n, bits):
    draw = np.random.default_rng(n + bits)
    encoder = SkinEncoder(n, max(1, n // 4), axes=1, bits=bits, seed=n, noise=1e9)
    frames = [draw.integers(-(10**size), 10**size + 1, n) for size in (0, 2, 4)]
    frames += [
        np.where(np.arange(n) == n // 2, -(2**31), 0), np.where(np.arange(n) == n // 2, -MOST, 0),
        np.zeros(n), np.full(n, MOST // n), np.full(n, -(MOST // n)), np.full(n, MOST), np.full(n, -MOST),
        draw.integers(-MOST, MOST, n), np.where(draw.random(n) < 0.1, draw.integers(-(10**6), 10**6, n), 0),
        *(top * encoder.transforms[0].signs.astype(np.int64) for top in (MOST // n, MOST)),
    ]  # fmt: skip
    for frame in frames:
        counts, before = frame.astype(np.int32), encoder.clipped
        (code,) = encoder.encode(counts)
        values, exponent, clipped, work = c_encode(encoder, counts)
        assert (code.values == values).all()
        assert (code.exponent, encoder.clipped - before) == (exponent, clipped)
        assert (work == encoder._kept[-1][1][0][0]).all()


@given(counts=arrays(np.int32, 24, elements=st.integers(-(2**31), MOST)), bits=st.integers(2, 16))
def test_c_makes_the_same_bits_of_anything(c_encode, counts, bits):
    encoder = SkinEncoder(24, 9, bits=bits, noise=1e9)
    values, exponent, clipped, _ = c_encode(encoder, counts)
    (code,) = encoder.encode(counts)
    assert (code.values.tolist(), code.exponent, encoder.clipped) == (values.tolist(), exponent, clipped)


@given(
    counts=arrays(np.int32, (10, 3), elements=st.integers(-(2**26), 2**26)),
    bits=st.integers(2, 16),
    n_dense=st.integers(1, 32),
)
def test_values_are_the_transform_rounded_half_up_with_the_smallest_exponent(counts, bits, n_dense):
    encoder = SkinEncoder(10, n_dense, axes=3, bits=bits, seed=4)
    (code,) = encoder.encode(counts)
    transform = encoder.transforms[0]
    exact = transform.forward(counts.ravel().astype(float), n_dense) * transform.size**0.5
    exact = np.rint(exact).astype(int)
    top = 2 ** (bits - 1) - 1
    assert (code.values == np.floor(exact / 2.0**code.exponent + 0.5)).all()
    assert np.abs(code.values.astype(int)).max() <= top
    if code.exponent:
        assert np.abs(np.floor(exact / 2.0 ** (code.exponent - 1) + 0.5)).max() > top


def test_newtons_are_rounded_to_counts():
    encoder = SkinEncoder(4, 4, resolution=0.25)
    assert encoder.counts(np.array([0.0, 0.3, 0.5, 1.0])).tolist() == [0, 1, 2, 4]
    assert encoder.counts(np.array([0.0, 0.3, 0.5, 1.0], dtype=np.float32)[:, None]).tolist() == [0, 1, 2, 4]
    assert encoder.counts([0, 1, 2, 3]).tolist() == [0, 4, 8, 12]
    assert encoder.counts(np.array([0, 1, 2, 3], dtype=np.uint8)).tolist() == [0, 1, 2, 3]
    assert encoder.counts(np.array([0, 1, 2, 3], dtype=">f4")).tolist() == [0, 4, 8, 12]
    assert encoder.counts(np.array([1e38, 0, 0, 1], dtype=np.float32)).tolist() == [MOST, 0, 0, 4]
    assert encoder.counts(np.array([2**40, 0, 0, 1])).tolist() == [MOST, 0, 0, 1]
    edge = np.array([MOST * 0.25, 0, 0, 0])
    assert encoder.counts(edge).tolist() == encoder.counts(edge.astype(np.float32)).tolist() == [MOST, 0, 0, 0]


def test_a_frame_that_is_too_large_is_cut_and_counted():
    encoder = SkinEncoder(4, 4)
    (code,) = encoder.encode(np.array([MOST - 1, 1, 0, 0]))
    assert encoder.clipped == 0
    assert code.exponent > 0
    encoder.encode(np.array([MOST - 1, 2, 0, 0]))
    assert encoder.clipped == 1
    transform = encoder.transforms[0]
    z = encoder._kept[-1][1][0][0]
    assert (z == transform.integers(np.array([MOST // 4, 2, 0, 0], dtype=np.int32))).all()


def test_noise_of_rounding_is_as_said():
    draw = np.random.default_rng(0)
    encoder = SkinEncoder(4096, 1024, bits=8)
    transform = encoder.transforms[0]
    rows, errors, predicted = transform.rows(1024), [], []
    for _ in range(20):
        counts = np.where(draw.random(4096) < 0.01, draw.integers(0, 4000, 4096), 0)
        (code,) = encoder.encode(counts)
        scale = encoder.resolution / transform.size**0.5
        exact = rows.forward(counts * encoder.resolution)
        errors.append(np.square(code.values * 2.0**code.exponent * scale - exact).mean())
        predicted.append(4.0**code.exponent * scale**2 / 12)
    ratio = np.mean(errors) / np.mean(predicted)
    # Squares of uniform errors have a variance of 4/5 of their squared mean.
    assert abs(ratio - 1) < 4 * np.sqrt(0.8 / (20 * 1024))


def test_blocks_have_codes_of_their_own():
    draw = np.random.default_rng(0)
    order = draw.permutation(60)
    blocks = [order[:7], order[7:40], order[40:]]
    encoder = SkinEncoder(60, [4, 9, 12], axes=3, blocks=blocks, seed=3)
    frame = draw.integers(-50, 50, (60, 3))
    codes = encoder.encode(frame)
    assert [(code.frame, code.block, len(code.values)) for code in codes] == [(0, 0, 4), (0, 1, 9), (0, 2, 12)]
    for block, code in enumerate(codes):
        alone = SkinEncoder(len(blocks[block]), len(code.values), axes=3, seed=3 + block)
        (other,) = alone.encode(frame[blocks[block]])
        assert (code.values == other.values).all()
        assert code.exponent == other.exponent
    assert SkinEncoder(60, 5, axes=3, blocks=blocks).n_dense == (5, 5, 5)


def test_streams_differ_where_anything_does():
    kinds = [
        {}, {"bits": 11}, {"seed": 1}, {"resolution": 0.01}, {"layout": 1}, {"n_dense": 5}, {"n_taxels": 13},
        {"n_taxels": 4, "axes": 3}, {"blocks": [range(6), range(6, 12)]}, {"blocks": [range(5), range(5, 12)]},
    ]  # fmt: skip
    streams = [SkinEncoder(**{"n_taxels": 12, "n_dense": 4, **kind}).stream for kind in kinds]
    assert len(set(streams)) == len(kinds)
    assert SkinEncoder(12, 4, blocks=[range(12)], noise=1).stream == streams[0]
    assert SkinEncoder(12, 4).stream == PINNED_STREAM


def test_more_rows_of_a_frame_can_be_had_for_a_while():
    encoder = SkinEncoder(100, 10, bits=16)
    frames = np.random.default_rng(0).integers(0, 50, (34, 100))
    codes = [encoder.encode(frame)[0] for frame in frames]
    more = encoder.more(4, 0, 10, 20)
    assert (more.frame, more.start, len(more.values), more.exponent) == (4, 10, 20, 0)
    exact = encoder.transforms[0].forward(frames[4].astype(float), np.arange(10, 30))
    np.testing.assert_allclose(more.values, exact * encoder.transforms[0].size ** 0.5, atol=1e-9)
    assert (encoder.more(5, 0, 0, 10).values == codes[5].values).all()
    for call, message in {
        lambda: encoder.more(1, 0, 10, 20): "frame is 1; allowed: the last 32, 2 to 33",
        lambda: SkinEncoder(4, 2).more(1, 0, 1, 1): "frame is 1; allowed: the last 32, none is there yet",
        lambda: encoder.more(4, 1, 10, 20): "block is 1; allowed",
        lambda: encoder.more(4, 0, 128, 1): "start is 128; allowed",
        lambda: encoder.more(4, 0, 100, 29): "count is 29; allowed: an integer from 1 to 28",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_frames_are_numbered_around():
    encoder = SkinEncoder(4, 2)
    encoder.frame = 2**32 - 1
    assert [encoder.encode(np.zeros(4))[0].frame for _ in range(2)] == [2**32 - 1, 0]


NAN, INFINITE = np.zeros((6, 3)), np.zeros((6, 3))
NAN[4, 1], INFINITE[5, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (NAN, "frame is nan at taxel 4, axis 1; allowed: finite newtons"),
        (INFINITE.astype(np.float32), "frame is -inf at taxel 5, axis 0; allowed: finite newtons"),
        (np.zeros(17), r"frame has shape \(17,\); allowed: an array \(6, 3\) or \(18,\)"),
        (np.zeros((3, 6)), r"frame has shape \(3, 6\); allowed"),
        (np.zeros((6, 3), dtype=complex), "frame has dtype complex128; allowed"),
        (np.zeros((6, 3), dtype=bool), "frame has dtype bool; allowed"),
        (np.zeros((6, 3)).astype(str), "frame has dtype <U.*; allowed"),
        (np.ma.masked_array(np.zeros((6, 3)), mask=True), "frame is a masked array; allowed"),
        (scipy.sparse.csr_array(np.zeros((6, 3))), "frame is .*; allowed"),
        (None, "frame is None of object; allowed"),
        ("touch", "frame is .*touch.*; allowed"),
        ([["a"] * 3] * 6, "frame is .*; allowed"),
    ],
)
def test_frames_that_are_none_are_named(frame, message):
    encoder = SkinEncoder(6, 4, axes=3)
    with pytest.raises(ValueError, match=message) as raised:
        encoder.encode(frame)
    assert "\n" not in str(raised.value)
    assert encoder.frame == 0
    encoder.encode(np.zeros((6, 3)))
    assert encoder.frame == 1


def test_negative_pressures_are_named():
    pressures = np.array([0.0, 1.0, -0.3, 0.0])
    with pytest.raises(ValueError, match=r"frame is -0\.3 at taxel 2; allowed: pressures of -0 or more"):
        SkinEncoder(4, 2).encode(pressures)
    with pytest.raises(ValueError, match=r"frame is -0\.3 at taxel 2; allowed: pressures of -0\.2 or more"):
        SkinEncoder(4, 2, noise=0.2).encode(pressures)
    with pytest.raises(ValueError, match=r"frame is -3 at taxel 1; allowed: pressures of -2 or more"):
        SkinEncoder(4, 2, noise=0.2, resolution=0.1).encode(np.array([0, -3, 0, 0]))
    assert SkinEncoder(4, 2, noise=0.3).counts(pressures)[2] < 0
    assert SkinEncoder(4, 2, axes=3).counts(np.full(12, -1.0)).max() < 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": 2}, "axes is 2; allowed: 1 or 3"),
        ({"axes": 4}, "axes is 4; allowed"),
        ({"bits": 1}, "bits is 1; allowed: an integer from 2 to 16"),
        ({"bits": 17}, "bits is 17; allowed"),
        ({"n_taxels": 0}, "n_taxels is 0; allowed"),
        ({"n_taxels": 70000}, "a block has 70000 numbers; allowed: up to 65536"),
        ({"n_dense": 0}, "n_dense is 0; allowed"),
        ({"n_dense": 17}, "n_dense is 17; allowed: an integer from 1 to 16"),
        ({"n_dense": [3, 3]}, "n_dense has 2 numbers; allowed: one, or 1"),
        ({"n_dense": "many"}, "n_dense is 'many'; allowed"),
        ({"resolution": 0}, "resolution is 0; allowed"),
        ({"resolution": float("nan")}, "resolution is nan; allowed"),
        ({"seed": -1}, "seed is -1; allowed"),
        ({"layout": 2**32}, "layout is 4294967296; allowed"),
        ({"noise": -1}, "noise is -1; allowed"),
        ({"blocks": []}, "blocks are 0; allowed: 1 to 256"),
        ({"blocks": [[0, 1], [2]]}, "blocks hold taxel 3 0 times; allowed"),
        ({"blocks": [[0, 1, 2, 3], range(1, 16)]}, "blocks hold taxel 1 2 times; allowed"),
        ({"blocks": [[0, 16]]}, "blocks hold taxels 0 to 16; allowed: 0 to 15"),
        ({"blocks": [[0.5]]}, "blocks hold .*; allowed: integers"),
        ({"blocks": [[]]}, "blocks hold .*; allowed: integers"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SkinEncoder(**{"n_taxels": 16, "n_dense": 4, **arguments})


@pytest.mark.parametrize("axes", [1, 3])
def test_firmware_can_be_built_of_the_tables(tmp_path, axes):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    encoder = SkinEncoder(90, [5, 7], axes=axes, seed=2, bits=10, blocks=[range(40), range(40, 90)])
    (tmp_path / "skin.h").write_text(encoder.c_tables(1))
    source = (importlib.resources.files("persianrug.skin") / "encode.c").read_text()
    (tmp_path / "main.c").write_text(
        source
        + """
#include <stdio.h>
#include "skin.h"
int main(void)
{
    static int32_t counts[SKIN_N], work[SKIN_SIZE];
    static int16_t values[SKIN_N_DENSE];
    int clipped;
    for (int i = 0; i < SKIN_N; i++) counts[i] = skin_taxels[i / SKIN_AXES] * 37 % 101;
    printf("%d", persianrug_encode(counts, SKIN_N, skin_signs, skin_columns, SKIN_BASE, SKIN_LOG2N, skin_matrix,
                                   skin_order, SKIN_N_DENSE, SKIN_BITS, work, values, &clipped));
    for (int i = 0; i < SKIN_N_DENSE; i++) printf(" %d", values[i]);
    printf(" %u %d", SKIN_STREAM, SKIN_BLOCK);
    return 0;
}
"""
    )
    command = ["cc", "-std=c99", "-Wall", "-Werror", "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    printed = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True).stdout
    code = encoder.encode(np.repeat(np.arange(90) * 37 % 101, axes))[1]
    assert printed == " ".join(map(str, [code.exponent, *code.values, encoder.stream, 1]))


def test_words():
    assert repr(SkinEncoder(16, 4)) == "SkinEncoder(16, 4, axes=1, bits=12, seed=0)"
    blocks = SkinEncoder(16, 4, blocks=[range(8), range(8, 16)])
    assert re.search(r"\(16, \(4, 4\), .*blocks=2\)", repr(blocks))
    assert blocks.n_sparse == 16


PINNED_STREAM = 2053542304
