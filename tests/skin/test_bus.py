import subprocess
import sys
import time

import numpy as np
import pytest

from persianrug.skin import (
    Assembler,
    Request,
    SimulatedBus,
    SkinEncoder,
    UdpReceiver,
    UdpSender,
)


def lost(bus, count=20_000):
    """Which packets are lost."""
    for number in range(count):
        bus.send(number, number.to_bytes(4))
    arrived = {int.from_bytes(content) for content in bus.receive(1e9)}
    return np.array([number not in arrived for number in range(count)])


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("loss", [0.05, 0.3, 0.6])
def test_losses_are_as_many_and_as_long_as_said(loss, burst):
    bus = SimulatedBus(loss, burst, seed=3)
    gone = lost(bus)
    assert bus.lost == gone.sum()
    starts = np.count_nonzero(np.diff(gone.astype(int)) == 1) + gone[0]
    # The variance of the mean of a chain whose neighbours correlate by 1 - 1 / burst.
    error = np.sqrt(loss * (1 - loss) * (2 * burst - 1) / len(gone))
    assert abs(gone.mean() - loss) < 4 * error
    mean = burst / (1 - loss)
    assert abs(gone.sum() / starts - mean) < 4 * mean / np.sqrt(starts)


def test_nothing_is_lost_without_losses_and_the_order_stays():
    bus = SimulatedBus(delay=0.5)
    for number in range(100):
        bus.send(number, bytes([number]))
    assert bus.receive(0.4) == []
    assert bus.receive(0.5) == [b"\0"]
    assert b"".join(bus.receive(1000)) == bytes(range(1, 100))
    assert (bus.receive(2000), bus.sent, bus.lost) == ([], 100, 0)


def test_delay_and_jitter():
    bus = SimulatedBus(delay=0.01, jitter=0.02, seed=1)
    bus.send(5.0, b"x")
    assert bus.receive(5.0099) == []
    assert bus.receive(5.0301) == [b"x"]
    for number in range(50):
        bus.send(number * 1e-3, bytes([number]))
    arrived = b"".join(bus.receive(9))
    assert sorted(arrived) == list(range(50))
    assert list(arrived) != list(range(50))


def test_doubled_and_damaged_packets():
    bus, packet = SimulatedBus(duplicate=0.2, damage=0.1, seed=2), bytes(40)
    for _ in range(5000):
        bus.send(0, packet)
    arrived = bus.receive(1)
    assert abs(len(arrived) / 5000 - 1.2) < 4 * np.sqrt(0.16 / 5000)
    turned = [bin(int.from_bytes(content)).count("1") for content in arrived if content != packet]
    assert abs(len(turned) / len(arrived) - 0.1) < 4 * np.sqrt(0.09 / len(arrived))
    assert set(turned) == set(range(1, 9))
    empty = SimulatedBus(damage=1)
    empty.send(0, b"")
    assert empty.receive(0) == [b""]


def test_the_same_seed_is_the_same_bus():
    assert (lost(SimulatedBus(0.2, seed=4), 500) == lost(SimulatedBus(0.2, seed=4), 500)).all()
    assert (lost(SimulatedBus(0.2, seed=4), 500) != lost(SimulatedBus(0.2, seed=5), 500)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": 1}, r"loss is 1; allowed: a number in \[0, 1\)"),
        ({"loss": -0.1}, "loss is -0.1; allowed"),
        ({"loss": float("nan")}, "loss is nan; allowed"),
        ({"burst": 0.5}, "burst is 0.5; allowed: a number >= 1"),
        ({"delay": -1}, "delay is -1; allowed"),
        ({"jitter": "much"}, "jitter is 'much'; allowed"),
        ({"duplicate": 2}, r"duplicate is 2; allowed: a number in \[0, 1\]"),
        ({"damage": -1}, "damage is -1; allowed"),
        ({"seed": -1}, "seed is -1; allowed"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimulatedBus(**arguments)


SENDER = """
import sys, time
import numpy as np
from persianrug.skin import SkinEncoder, UdpSender, packets_of, read_request
encoder = SkinEncoder(64, 16, bits=16)
with UdpSender("127.0.0.1", int(sys.argv[1])) as sender:
    for number in range(int(sys.argv[2])):
        (code,) = encoder.encode(np.arange(64) * (number % 7))
        sender.send(packets_of(code, encoder.stream, 2))
        for content in sender.receive(0.002):
            asked = read_request(content)
            more = encoder.more(asked.frame, asked.block, asked.start, asked.count)
            sender.send(packets_of(more, asked.stream))
"""


def started(port, frames):
    return subprocess.Popen([sys.executable, "-c", SENDER, str(port), str(frames)], stderr=subprocess.PIPE)


def read(receiver, assembler, until, seconds=20):
    """Readings until there are so many."""
    readings, end = [], time.monotonic() + seconds
    while len(readings) < until and time.monotonic() < end:
        for content in receiver.receive(0.2):
            readings += assembler.push(content)
    return readings


def ended(process):
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, b"")


def test_two_processes_talk_and_more_rows_are_asked_for():
    encoder = SkinEncoder(64, 16, bits=16)
    transform = encoder.transforms[0]
    assembler = Assembler(encoder.stream, encoder.n_dense, 16, sizes=[transform.size])
    with UdpReceiver(0) as receiver:
        assert receiver.receive() == []
        assert not receiver.reply(b"to nobody")
        process = started(receiver.port, 300)
        readings = read(receiver, assembler, 50)
        for _ in range(20):
            last = readings[-1].frame
            assert receiver.reply(Request(encoder.stream, last, 0, 16, 48).pack())
            readings += read(receiver, assembler, 10)
            if readings[-1].entries[0] == 16 or any(reading.entries[0] == 16 for reading in readings):
                break
        ended(process)
    (more,) = [reading for reading in readings if reading.entries[0] == 16]
    for reading in (*readings[:20], more):
        exact = transform.forward(np.arange(64.0) * (reading.frame % 7), reading.entries) * transform.size**0.5
        assert np.abs(reading.values * 2.0**reading.exponent - exact).max() <= 2.0**reading.exponent / 2 + 1e-9


def test_a_receiver_may_start_before_or_after_the_sender():
    encoder = SkinEncoder(64, 16, bits=16)
    with UdpReceiver(0) as before:
        port = before.port
        assert before.receive(0.05) == []
    # Nobody listens now.
    process = started(port, 2000)
    time.sleep(0.5)
    with UdpReceiver(port) as receiver:
        readings = read(receiver, Assembler(encoder.stream, 16, 16), 20)
        assert len(readings) >= 20
    # And now nobody does again, which is nothing to the sender.
    time.sleep(0.1)
    assert process.poll() is None
    with UdpReceiver(port) as receiver:
        assert len(read(receiver, Assembler(encoder.stream, 16, 16), 20)) >= 20
    process.terminate()
    process.communicate(timeout=20)


def test_a_sender_that_is_killed_and_started_anew():
    encoder = SkinEncoder(64, 16, bits=16)
    assembler = Assembler(encoder.stream, 16, 16)
    with UdpReceiver(0) as receiver:
        process = started(receiver.port, 2000)
        first = read(receiver, assembler, 200)
        process.kill()
        process.communicate(timeout=20)
        while receiver.receive(0.2):
            pass
        process = started(receiver.port, 400)
        second = read(receiver, assembler, 100)
        process.kill()
        process.communicate(timeout=20)
    assert len(first) >= 200
    assert len(second) >= 100
    assert assembler.counts.damaged == assembler.counts.foreign == assembler.counts.wrong == 0


def test_a_port_in_use_is_one_line():
    with UdpReceiver(0) as receiver:
        with pytest.raises(ValueError, match=f"port is {receiver.port}, which is in use at 127.0.0.1") as raised:
            UdpReceiver(receiver.port)
        assert "\n" not in str(raised.value)
    with UdpReceiver(receiver.port):
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UdpReceiver(-1), "port is -1; allowed: an integer from 0 to 65535"),
        (lambda: UdpReceiver(70000), "port is 70000; allowed"),
        (lambda: UdpReceiver(0, "192.0.2.1"), "host is '192.0.2.1': .*; allowed: an address of this computer"),
        (lambda: UdpReceiver(0, "not a host"), "host is 'not a host', which is not known; allowed"),
        (lambda: UdpReceiver(0, "a" * 300), "host is .*, which is not known; allowed"),
        (lambda: UdpReceiver(0, 5), "host is 5, which is not known; allowed"),
        (lambda: UdpSender("127.0.0.1", 0), "port is 0; allowed: an integer from 1 to 65535"),
        (lambda: UdpSender("a\0b", 5005), "host is .*, which is not known; allowed"),
    ],
)
def test_addresses_that_are_none_are_named(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_receive_waits_as_long_as_said_and_gives_all_that_is_there():
    with UdpReceiver(0) as receiver, UdpSender("127.0.0.1", receiver.port) as sender:
        start = time.monotonic()
        assert receiver.receive(0.05) == []
        assert time.monotonic() - start >= 0.05
        sender.send([bytes([number]) for number in range(20)])
        assert b"".join(receiver.receive(1)) == bytes(range(20))
        # Too long for a packet: what comes is no packet either.
        sender.send([bytes(5000)])
        assert [len(content) for content in receiver.receive(1)] == [1401]
        assert receiver.reply(b"more")
        assert sender.receive(1) == [b"more"]
        with pytest.raises(ValueError, match="timeout is -1; allowed"):
            receiver.receive(-1)
        assert repr(receiver) == f"UdpReceiver({receiver.port}, host='127.0.0.1')"
        assert repr(sender) == f"UdpSender('127.0.0.1', {receiver.port})"


def test_a_flood_is_given_in_parts():
    with UdpReceiver(0) as receiver, UdpSender("127.0.0.1", receiver.port) as sender:
        sender.send([b"x"] * 1500)
        assert len(receiver.receive(1)) <= 1024
        assert sender.refused == 0


def test_packets_that_find_nobody_are_counted():
    with UdpReceiver(0) as receiver:
        port = receiver.port
    with UdpSender("127.0.0.1", port) as sender:
        for _ in range(3):
            sender.send([b"x"])
            time.sleep(0.01)
        assert sender.refused >= 1
        assert sender.receive() == []
        # One that comes then is found by the next packet, although the one before found nobody.
        sender.send([b"x"])
        with UdpReceiver(port) as receiver:
            sender.send([b"y"])
            assert receiver.receive(1) == [b"y"]
        refused = sender.refused
        sender.send([bytes(100_000)])
        assert sender.refused == refused + 1


def test_the_closed_end_says_so():
    receiver = UdpReceiver(0)
    receiver.close()
    with pytest.raises(OSError, match="descriptor"):
        receiver.receive()
