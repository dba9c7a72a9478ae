import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.skin import Code, DamagedPacket, Request, packets_of, read_packet, read_request
from persianrug.skin.packets import MOST_BYTES

STREAM = 0xDEADBEEF


def code_of(values, bits=12, exponent=3, frame=7, block=2, start=0):
    return Code(frame, block, np.array(values, dtype=np.int16), exponent, bits, start)


def written(values, bits, **header):
    """A packet with the right checksum, whatever it says."""
    fields = {"magic": b"Pr", "version": 1, "stream": STREAM, "frame": 7, "block": 2, "exponent": 3, "start": 0}
    fields |= {"count": len(values), **header}
    text = "".join(f"{value & (1 << bits) - 1:0{bits}b}" for value in values)
    text += fields.pop("padding", "0") * (-len(text) % 8)
    payload = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    head = struct.pack(
        ">2sBBIIBBHH", fields["magic"], fields["version"], bits, fields["stream"], fields["frame"],
        fields["block"], fields["exponent"], fields["start"], fields["count"],
    )  # fmt: skip
    return head + struct.pack(">I", zlib.crc32(head + payload)) + payload


@st.composite
def codes(draw):
    bits = draw(st.integers(2, 16))
    top = 2 ** (bits - 1) - 1
    values = draw(st.lists(st.integers(-top, top), min_size=1, max_size=300))
    return code_of(
        values, bits, draw(st.integers(0, 31)), draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 255)),
        draw(st.integers(0, 2**16 - 300)),
    )  # fmt: skip


@given(codes(), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_packets_hold_what_was_written(code, n_packets, stream):
    packets = packets_of(code, stream, n_packets)
    read = [read_packet(packet) for packet in packets]
    assert max(map(len, packets)) <= MOST_BYTES
    assert len(packets) == min(n_packets, len(code.values))
    assert np.concatenate([packet.values for packet in read]).tolist() == code.values.tolist()
    counts = [len(packet.values) for packet in read]
    assert max(counts) - min(counts) <= 1
    for packet, start in zip(read, np.cumsum([0, *counts]), strict=False):
        assert packet.start == code.start + start
        assert (packet.stream, packet.frame, packet.block) == (stream, code.frame, code.block)
        assert (packet.exponent, packet.bits, packet.values.dtype) == (code.exponent, code.bits, np.int16)


@given(codes())
def test_bytes_are_as_described(code):
    (packet,) = packets_of(code, STREAM)
    header = {"frame": code.frame, "block": code.block, "exponent": code.exponent, "start": code.start}
    assert packet == written(code.values.tolist(), code.bits, **header)


def test_a_packet_for_ever():
    (packet,) = packets_of(code_of([-5, 0, 2047, -2047, 1]), STREAM)
    assert packet.hex() == "5072010cdeadbeef00000007020300000005fc820fbeffb0007ff8010010"


def test_long_codes_take_more_packets():
    packets = packets_of(code_of(np.zeros(12288)), STREAM)
    assert len(packets) == 14
    assert max(map(len, packets)) <= MOST_BYTES
    assert packets_of(code_of([]), STREAM, 3) == []
    assert len(packets_of(code_of(np.zeros(918)), STREAM)) == 1
    assert len(packets_of(code_of(np.zeros(919)), STREAM)) == 2


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (b"", "packet has 0 bytes; allowed: 22 to 1400"),
        (bytes(21), "packet has 21 bytes"),
        (bytes(1401), "packet has 1401 bytes"),
        (bytes(100), "packet begins with "),
        (written([1], 8, magic=b"Px"), "packet begins with b'Px'; allowed: b'Pr'"),
        (written([1], 8, version=2), "packet is of version 2; allowed: 1"),
        (written([1], 1), "packet has values of 1 bits; allowed: 2 to 16"),
        (written([1], 17), "packet has values of 17 bits"),
        (written([1], 8, exponent=32), "packet has the exponent 32; allowed: up to 31"),
        (written([], 8), "packet has 0 entries from 0 on"),
        (written([1, 2], 8, start=65535), "packet has 2 entries from 65535 on"),
        (written([1, 2], 8, count=3), "packet has 25 bytes|packet has 24 bytes; allowed: 25 for 3 values"),
        (written([1, 2], 8, count=65535), "packet has 24 bytes; allowed: 65557"),
        (written([1, 2, 3], 12, padding="1"), "packet has bits after its values; allowed: zeros"),
        (written([1, -128], 8), "packet has the value -128; allowed: from -127 on"),
        (written([1, 2], 8) + b"\0", "checksum"),
    ],
)
def test_packets_that_lie_are_refused(packet, message):
    with pytest.raises(DamagedPacket, match=message) as raised:
        read_packet(packet)
    assert "\n" not in str(raised.value)
    assert "allowed: " in str(raised.value)


def test_whatever_is_turned_is_refused():
    """100,000 packets: random ones, and valid ones with bits turned, cut, grown, or parts of others in them."""
    draw = np.random.default_rng(0)
    valid = []
    for bits in range(2, 17):
        top = 2 ** (bits - 1) - 1
        for count in (1, 5, 80):
            code = code_of(draw.integers(-top, top + 1, count), bits, frame=int(draw.integers(2**32)))
            valid += packets_of(code, STREAM, 2)
    # Every bit of the short ones, once.
    mutants = [
        (packet, bytes(b ^ (1 << place % 8) if i == place // 8 else b for i, b in enumerate(packet)))
        for packet in valid[:30]
        for place in range(8 * len(packet))
    ]
    while len(mutants) < 70_000:
        packet, other = (valid[i] for i in draw.integers(0, len(valid), 2))
        content = bytearray(packet)
        kind, place = draw.integers(0, 5), int(draw.integers(0, len(packet)))
        if kind == 0:
            for place in draw.integers(0, 8 * len(packet), draw.integers(1, 9)):
                content[place // 8] ^= 1 << (place % 8)
        elif kind == 1:
            content = content[:place]
        elif kind == 2:
            content += draw.bytes(int(draw.integers(1, 9)))
        elif kind == 3:
            content[place : place + 4] = draw.bytes(4)
        else:
            content[place:] = other[place:]
        mutants.append((packet, bytes(content)))
    for packet, mutant in mutants:
        if mutant != packet and mutant not in valid:
            with pytest.raises(DamagedPacket):
                read_packet(mutant)
    for length in draw.integers(0, 200, 30_000):
        content = draw.bytes(int(length))
        with pytest.raises(DamagedPacket):
            read_packet(content)
        with pytest.raises(DamagedPacket):
            read_packet(b"Pr" + content)


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 65535), st.data()
)  # fmt: skip
def test_requests_hold_what_was_written(stream, frame, block, start, data):
    count = data.draw(st.integers(1, min(65535, 65536 - start)))
    request = Request(stream, frame, block, start, count)
    content = request.pack()
    assert len(content) == 20
    assert read_request(content) == request
    place = data.draw(st.integers(0, 159))
    turned = bytes(b ^ (1 << place % 8) if i == place // 8 else b for i, b in enumerate(content))
    for bad in (turned, content[:-1], content + b"\0", b"", packets_of(code_of([1]), 0)[0]):
        with pytest.raises(DamagedPacket):
            read_request(bad)


def test_requests_that_lie_are_refused():
    head = struct.pack(">2sBBIIHH", b"Pq", 1, 0, 5, 6, 10, 0)
    with pytest.raises(DamagedPacket, match="request says that count is 0; allowed: "):
        read_request(head + struct.pack(">I", zlib.crc32(head)))
    head = struct.pack(">2sBBIIHH", b"Pq", 1, 0, 5, 6, 10, 1) + struct.pack(">I", 0)
    longer = head[:16] + struct.pack(">I", zlib.crc32(head[:16] + b"x")) + b"x"
    with pytest.raises(DamagedPacket, match="request has 21 bytes; allowed: 20"):
        read_request(longer)
    with pytest.raises(ValueError, match="count is 65536; allowed"):
        Request(0, 0, 0, 0, 65536)


def test_bad_arguments_are_named():
    for call, message in {
        lambda: packets_of(code_of([1]), -1): "stream is -1; allowed",
        lambda: packets_of(code_of([1]), 0, 0): "n_packets is 0; allowed",
        lambda: packets_of(code_of([1, 2048]), 0): "values go beyond 2047; allowed: up to that at 12 bits",
        lambda: packets_of(code_of([1, -2048]), 0): "values go beyond 2047; allowed: up to that at 12 bits",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
