import itertools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persianrug.skin import Assembler, Code, SimulatedBus, SkinEncoder, packets_of

STREAM, WRAP = 77, 2**32
SIZES = (9, 6)


def values_of(frame, block):
    """What the code of a frame holds, known from its number."""
    return ((np.arange(SIZES[block]) * 31 + frame % 1009 * 7 + block) % 101 - 50).astype(np.int16)


def packets(frame, n_packets=3, stream=STREAM, exponent=None):
    """The packets of a frame of two blocks."""
    return [
        packet
        for block in range(2)
        for packet in packets_of(
            Code(frame, block, values_of(frame, block), frame % 5 if exponent is None else exponent, 12),
            stream,
            n_packets,
        )
    ]


def assembler(**arguments):
    return Assembler(STREAM, SIZES, **arguments)


def push(receiver, contents):
    return [reading for content in contents for reading in receiver.push(content)]


def right(readings):
    """Whether all that readings say is what was sent."""
    return all(
        (reading.values == values_of(reading.frame, reading.block)[reading.entries]).all()
        and reading.exponent == reading.frame % 5
        and (np.diff(reading.entries) > 0).all()
        for reading in readings
    )


def whole(readings):
    """Which frames have come with all that they have."""
    found = {}
    for reading in readings:
        found[reading.frame] = found.get(reading.frame, 0) + len(reading.entries)
    return [frame for frame, count in found.items() if count == sum(SIZES)]


def test_a_frame_is_given_with_its_last_packet():
    receiver = assembler()
    contents = packets(5)
    assert push(receiver, contents[:-1]) == []
    readings = receiver.push(contents[-1])
    assert [(reading.frame, reading.block, len(reading.entries)) for reading in readings] == [(5, 0, 9), (5, 1, 6)]
    assert [(reading.entries.dtype, reading.values.dtype) for reading in readings] == [(np.int64, np.int32)] * 2
    assert right(readings)
    assert receiver.counts.complete == 1


@given(st.permutations(packets(WRAP - 1)), st.integers(0, 5))
def test_packets_of_a_frame_come_in_any_order(contents, doubled):
    receiver = assembler()
    readings = push(receiver, [*contents[:-1], contents[doubled % 5], contents[-1]])
    assert whole(readings) == [WRAP - 1]
    assert right(readings)
    assert receiver.counts.doubled == 1


def test_a_frame_with_losses_waits_for_newer_frames_and_others_for_it():
    receiver = assembler(depth=2)
    assert push(receiver, packets(0)[:3]) == []
    assert push(receiver, packets(1)) == []
    readings = push(receiver, packets(2)[:1])
    assert [(reading.frame, len(reading.entries)) for reading in readings] == [(0, 9), (1, 9), (1, 6)]
    readings = push(receiver, packets(2)[1:])
    assert whole(readings) == [2]
    assert push(receiver, packets(0)[3:]) == []
    counts = receiver.counts
    assert (counts.late, counts.partial, counts.complete, counts.missing) == (3, 1, 2, 0)
    assert push(receiver, packets(4)[:2]) == []
    (reading,) = receiver.flush()
    assert reading.entries.tolist() == list(range(6))
    assert (counts.missing, counts.partial, receiver.flush()) == (1, 2, [])


@pytest.mark.parametrize("first", [0, 17, WRAP - 40])
@pytest.mark.parametrize("seed", range(6))
def test_a_bad_bus(first, seed):
    """Everything at once; numbers go around; what is given is right, in order, and given once."""
    bus = SimulatedBus(0.1, burst=3, delay=0.003, jitter=0.0015, duplicate=0.1, damage=0.1, seed=seed)
    receiver, readings = assembler(depth=3), []
    frames = [(first + step) % WRAP for step in range(400)]
    for step, frame in enumerate(frames):
        for content in packets(frame):
            bus.send(step * 1e-3, content)
        readings += push(receiver, bus.receive(step * 1e-3))
    readings += push(receiver, bus.receive(10)) + receiver.flush()
    assert right(readings)
    places = [(reading.frame - first) % WRAP * 2 + reading.block for reading in readings]
    assert places == sorted(set(places))
    counts = receiver.counts
    got = {reading.frame for reading in readings}
    assert counts.complete + counts.partial == len(got)
    assert counts.complete + counts.partial + counts.missing >= 390
    assert min(counts.damaged, counts.doubled, counts.partial) > 0
    assert (counts.foreign, counts.wrong, counts.stray, counts.restarts) == (0, 0, 0, 0)
    # Of 6 packets a frame, 10% are lost and 10% damaged, in bursts.
    assert 0.75 < sum(len(reading.entries) for reading in readings) / (400 * 15) < 0.9


def test_packets_of_another_skin_are_counted():
    receiver = assembler()
    assert push(receiver, packets(0, stream=STREAM + 1)) == []
    assert receiver.counts.foreign == 6
    assert whole(push(receiver, packets(WRAP // 2))) == [WRAP // 2]


@pytest.mark.parametrize(
    ("values", "block", "start", "bits"),
    [([1], 2, 0, 12), ([1], 0, 9, 12), ([1, 2], 0, 8, 12), ([0] * 10, 0, 0, 12), ([1], 0, 0, 11)],
)
def test_packets_that_do_not_fit_the_skin_are_counted(values, block, start, bits):
    receiver = assembler()
    (content,) = packets_of(Code(0, block, np.array(values, dtype=np.int16), 0, bits, start), STREAM)
    assert receiver.push(content) == []
    assert receiver.counts.wrong == 1
    assert whole(push(receiver, packets(9))) == [9]


def test_packets_at_odds_with_their_frame_are_counted():
    receiver = assembler()
    contents = packets(5)
    push(receiver, contents[:2])
    push(receiver, packets(5, exponent=9)[2:3])
    (content,) = packets_of(Code(5, 0, values_of(6, 0)[:5], 0, 12), STREAM)
    receiver.push(content)
    assert receiver.counts.wrong == 2
    # Packets cut otherwise, whose parts are partly here.
    readings = push(receiver, packets(5, 2))
    assert whole(readings) == [5]
    assert right(readings)


def test_a_stream_that_starts_in_the_middle():
    receiver = assembler()
    readings = push(receiver, [*packets(1000)[4:], *packets(1001), *packets(1002)])
    assert right(readings)
    assert whole(readings) == [1001, 1002]
    assert receiver.counts.missing == 0


@pytest.mark.parametrize("before", [200, 50_000, WRAP - 300, WRAP // 2 + 5])
def test_a_sender_that_begins_anew_is_believed_after_eight_frames(before):
    receiver = assembler()
    push(receiver, itertools.chain.from_iterable(packets(before + step) for step in range(5)))
    push(receiver, packets(before + 5)[:1])
    readings = push(receiver, itertools.chain.from_iterable(packets(step) for step in range(20)))
    assert readings[0].frame == before + 5
    assert whole(readings) == list(range(7, 20))
    assert right(readings)
    assert (receiver.counts.restarts, receiver.counts.late) == (1, 0)


def test_a_sender_that_begins_anew_close_by_is_late_until_it_passes():
    receiver = assembler()
    push(receiver, itertools.chain.from_iterable(packets(step) for step in range(100)))
    readings = push(receiver, itertools.chain.from_iterable(packets(step) for step in range(110)))
    assert whole(readings) == list(range(100, 110))
    assert receiver.counts.restarts == 0


@pytest.mark.parametrize("gap", [1, 100, 1000])
def test_a_stream_that_was_away(gap):
    receiver = assembler()
    push(receiver, itertools.chain.from_iterable(packets(step) for step in range(10)))
    readings = push(receiver, itertools.chain.from_iterable(packets(10 + gap + step) for step in range(30)))
    first = 10 + gap + (7 if gap > 128 else 0)
    assert whole(readings)[0] in (first, first + 1)
    assert whole(readings)[1:] == list(range(whole(readings)[0] + 1, 40 + gap))


@pytest.mark.parametrize("kind", ["random", "same", "ahead"])
def test_a_flood_takes_no_memory_and_does_not_hold_the_stream_up(kind):
    receiver, draw = assembler(depth=4, sizes=(64, 64)), np.random.default_rng(0)
    far = {
        "random": lambda step: int(draw.integers(10**6, WRAP - 10**6)),
        "same": lambda step: 10**9,
        # Faster than the stream, but never eight without one of its packets between.
        "ahead": lambda step: 10**9 + step,
    }[kind]
    readings, most = [], 0
    for step in range(2000):
        for packet in packets(step):
            readings += receiver.push(packet)
            readings += receiver.push(packets(far(step))[draw.integers(6)])
            more = Code(int(draw.integers(WRAP)), 0, np.ones(4, np.int16), 0, 12, 20)
            readings += [reading for reading in push(receiver, packets_of(more, STREAM)) if reading.entries[0] < 9]
            most = max(most, len(receiver._frames))
    assert right(readings)
    assert whole(readings) == list(range(2000))
    assert most <= 4
    assert receiver.counts.restarts == 0
    # What is there is the same as at the beginning.
    assert len(receiver._answers) <= 256
    assert sum(map(sys.getsizeof, vars(receiver).values())) < 5000


def test_after_a_flood_alone_the_stream_is_there_again():
    receiver = assembler()
    push(receiver, itertools.chain.from_iterable(packets(step) for step in range(10)))
    push(receiver, itertools.chain.from_iterable(packets(10**9 + step) for step in range(2000)))
    assert receiver.counts.restarts == 1
    readings = push(receiver, itertools.chain.from_iterable(packets(step) for step in range(10, 30)))
    assert whole(readings) == list(range(17, 30))


@given(st.lists(st.tuples(st.integers(0, WRAP - 1) | st.integers(0, 40), st.integers(0, 5)), max_size=200))
def test_whatever_comes_is_given_right_and_in_order_or_not_at_all(order):
    receiver, readings, most = assembler(depth=3), [], 0
    for frame, part in order:
        before = receiver.counts.restarts
        new = receiver.push(packets(frame)[part])
        readings += new
        most = max(most, len(receiver._frames))
        if receiver.counts.restarts == before:
            assert len({(reading.frame, reading.block) for reading in new}) == len(new)
    readings += receiver.flush()
    assert right(readings)
    assert most <= 3
    counts = receiver.counts
    taken = counts.packets - counts.late - counts.doubled - counts.stray
    assert taken >= counts.complete + counts.partial
    if counts.restarts == 0:
        numbers = [(reading.frame, reading.block) for reading in readings]
        assert len(set(numbers)) == len(numbers)


def test_damage_never_gets_through():
    """100,000 random and mutated packets among those of a stream: nothing but the stream is given."""
    draw, receiver, readings = np.random.default_rng(1), assembler(), []
    for frame in range(500):
        contents = packets(frame)
        for content in contents:
            for _ in range(33):
                bad = bytearray(content)
                if draw.random() < 0.3:
                    bad = bytearray(draw.bytes(int(draw.integers(0, 60))))
                else:
                    place = int(draw.integers(0, len(bad)))
                    bad[place] ^= int(draw.integers(1, 256))
                    bad = bad[: int(draw.integers(0, len(bad) + 1))] if draw.random() < 0.2 else bad
                if bytes(bad) != content:
                    readings += receiver.push(bytes(bad))
        readings += push(receiver, contents)
    assert receiver.counts.packets >= 95_000
    assert receiver.counts.damaged == receiver.counts.packets - 3000
    assert right(readings)
    assert whole(readings) == list(range(500))


def test_more_rows_are_given_as_they_come():
    encoder = SkinEncoder(100, 10)
    transform = encoder.transforms[0]
    receiver = Assembler(encoder.stream, encoder.n_dense, depth=2, sizes=[transform.size])
    frame = np.arange(100)
    contents = packets_of(encoder.encode(frame)[0], encoder.stream, 2)
    assert push(receiver, packets_of(encoder.more(0, 0, 10, 20), encoder.stream)) == []
    assert receiver.counts.stray == 1
    push(receiver, contents)
    more = packets_of(encoder.more(0, 0, 10, 20), encoder.stream, 2)
    readings = push(receiver, [*more, *more])
    assert [reading.entries.tolist() for reading in readings] == [list(range(10, 20)), list(range(20, 30))]
    values = np.concatenate([reading.values for reading in readings]) * 2.0 ** readings[0].exponent
    exact = transform.forward(frame.astype(float), np.arange(10, 30)) * transform.size**0.5
    assert np.abs(values - exact).max() <= 2.0 ** readings[0].exponent / 2
    assert receiver.counts.doubled == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stream": -1}, "stream is -1; allowed"),
        ({"n_dense": 0}, "n_dense is 0; allowed"),
        ({"n_dense": []}, "n_dense has 0 numbers; allowed: 1 to 256"),
        ({"bits": 1}, "bits is 1; allowed"),
        ({"depth": 0}, "depth is 0; allowed: an integer from 1 to 64"),
        ({"sizes": [7]}, "sizes is 7; allowed: an integer from 8 to 65536"),
        ({"sizes": [16, 16]}, "sizes has 2 numbers; allowed: 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Assembler(**{"stream": 0, "n_dense": 8, **arguments})


def test_words():
    assert repr(assembler()) == "Assembler(n_dense=(9, 6), bits=12, depth=2, waiting=0)"
