"""A live stream of a skin on the command line: between two processes, and with either end ended in the middle."""

import contextlib
import os
import re
import resource
import select
import signal
import socket
import threading
import time

import numpy as np
import pytest

from persianrug.skin import (
    LiveSender,
    RecordingReader,
    SimulatedBus,
    SkinProfile,
    UdpSender,
)
from tests.cli.helpers import of_json, ran
from tests.cli.skins import RATIO, SIDE, blobs
from tests.conftest import ENDED, refused, without_privileges

pytestmark = pytest.mark.usefixtures("mat")

PROFILE = ("--profile", "profile.npz", *RATIO)


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def port():
    return free_port()


class Lines:
    """What a process prints, line by line, as it comes."""

    def __init__(self, process):
        self.process, self.seen = process, ""
        os.set_blocking(process.stdout.fileno(), False)

    def until(self, words, since=0, timeout=30):
        """Wait for words after some place of what was printed; where they end."""
        deadline = time.monotonic() + timeout
        while (place := self.seen.find(words, since)) < 0:
            assert time.monotonic() < deadline, self.seen
            select.select([self.process.stdout], [], [], 0.1)
            with contextlib.suppress(BlockingIOError, TypeError):
                # Python's text streams say None where nothing is there.
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                self.seen += part.decode()
                assert part or self.process.poll() is None or words in self.seen, self.seen
        return place + len(words)

    def end(self):
        """What it printed on both streams, once it has ended."""
        os.set_blocking(self.process.stdout.fileno(), True)
        out, err = self.process.communicate(timeout=30)
        return self.seen + out, err


class Feeder:
    """A sender in a thread of the test, at 200 frames a second, until it is closed."""

    def __init__(self, folder, port, *, ratio=4, loss=0.0, **encoding):
        profile = SkinProfile.load(folder / "profile.npz")
        self.bus = UdpSender("127.0.0.1", port)
        self.sender = LiveSender(profile.encoder(ratio, **encoding), self, 4)
        self.lossy = SimulatedBus(loss)
        self.frames = blobs(200)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def send(self, packets):
        for packet in packets:
            self.lossy.send(0, packet)
        self.bus.send(self.lossy.receive(0))

    def receive(self, timeout=0.0):
        return self.bus.receive(timeout)

    def _run(self):
        count = 0
        while not self._end.is_set():
            self.sender.send(self.frames[count % 200])
            count += 1
            self.sender.answer(0.005)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        self.bus.close()


class TestTwoProcesses:
    def test_a_receiver_that_is_first_and_outlasts_killed_senders(self, here, start, port):
        receiver = start("skin", "receive", *PROFILE, "--port", port, "--out", "t.mcap")
        sending = ("skin", "send", "touch.npz", *PROFILE, "--to", f"127.0.0.1:{port}", "--loop")
        lines = Lines(receiver)
        lines.until(f"waiting at 127.0.0.1:{port}")
        first = start(*sending)
        lines.until("mat: contact, pressed with")
        at = lines.until("mat: contact ended")
        lines.until("frames a second", at)
        first.kill()
        at = lines.until("nothing comes any more: contacts are no longer valid")
        second = start(*sending)
        at = lines.until("frames come again", at)
        at = lines.until("mat: contact ended", at)
        os.killpg(receiver.pid, signal.SIGINT)
        out, err = lines.end()
        assert (receiver.returncode, err) == ENDED[signal.SIGINT]
        count = int(re.search(r"ended: (\d+) frames, [\d.]+ a second", out)[1])
        assert f"t.mcap: {count} frames recorded" in out
        # All that was received is there, and whole.
        reader = RecordingReader(here / "t.mcap")
        records = list(reader)
        assert reader.complete
        assert len(records) == count
        right = blobs(200)
        for record in records[:: max(count // 50, 1)]:
            if record.explained.all() and record.heard.all():
                # Packets are lost where a machine is busy: then frames are less sure, and say so.
                error = np.linalg.norm(right - record.x.ravel(), axis=1).min()
                assert error < 0.1 + (0.01 + 3 * record.expected_error) * np.linalg.norm(record.x)
        os.killpg(second.pid, signal.SIGINT)
        out, err = second.communicate(timeout=30)
        assert (second.returncode, err) == ENDED[signal.SIGINT]
        assert re.search(r"ended: \d+ frames sent", out)

    def test_a_sender_that_is_first_and_outlasts_killed_receivers(self, here, start, port):
        sender = start("skin", "send", "touch.npz", *PROFILE, "--to", f"localhost:{port}", "--loop", "--json")
        receiving = ("skin", "receive", *PROFILE, "--port", port, "--out")
        one = start(*receiving, "one.mcap")
        Lines(one).until("frames a second")
        one.kill()
        assert one.wait(timeout=30) == -signal.SIGKILL
        two = start(*receiving, "two.mcap")
        lines = Lines(two)
        lines.until("mat: contact, pressed")
        os.killpg(two.pid, signal.SIGTERM)
        out, err = lines.end()
        assert (two.returncode, err) == ENDED[signal.SIGTERM]
        assert "frames recorded" in out
        reader = RecordingReader(here / "two.mcap")
        assert len(list(reader)) > 0
        assert reader.complete
        os.killpg(sender.pid, signal.SIGTERM)
        out, err = sender.communicate(timeout=30)
        assert (sender.returncode, err) == ENDED[signal.SIGTERM]
        assert '"packets_refused"' in out

    def test_a_full_disk(self, here, start, mat, port):
        limit = 150_000
        with Feeder(mat.folder, port):
            process = start_limited(start, limit, "skin", "receive", *PROFILE, "--port", port, "--out", "t.mcap")
            _, err = process.communicate(timeout=30)
        assert process.returncode == 2
        assert err.count("\n") == 1
        assert re.match("persianrug: .*: recording .*t.mcap ends before frame", err)
        assert (here / "t.mcap").stat().st_size <= limit
        # What was written before is read.
        assert len(list(RecordingReader(here / "t.mcap"))) > 50


def start_limited(start, limit, *arguments):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return start(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestReceive:
    """In this process, from a sender in a thread."""

    def test_frames(self, here, command, mat, port):
        with Feeder(mat.folder, port):
            report = of_json(command("skin", "receive", *PROFILE, "--port", port, "--frames", 100, "--json"))
        assert report["frames"] >= 100
        assert report["explained"] > 0.9
        assert report["recorded"] == 0
        assert report["counts"]["packets"] >= 400
        assert report["counts"]["foreign"] == report["counts"]["damaged"] == 0

    def test_a_lossy_stream_asks_for_more(self, here, command, mat, port):
        with Feeder(mat.folder, port, ratio=6, loss=0.2) as feeder:
            options = ("--profile", "profile.npz", "--ratio", 6, "--port", port, "--frames", 200, "--json")
            report = of_json(command("skin", "receive", *options, "--out", "t.mcap"))
        assert 0.1 < report["lost"] < 0.35
        assert report["counts"]["partial"] > 50
        assert report["asked"] > 10
        assert report["answered"] > 5
        assert feeder.sender.answered > 5
        # Every frame once.
        numbers = [record.frame for record in RecordingReader(here / "t.mcap")]
        assert len(numbers) == len(set(numbers)) == report["recorded"] == report["frames"]

    def test_other_settings_are_told_once(self, here, command, mat, port):
        with Feeder(mat.folder, port, ratio=5):
            result = command("skin", "receive", *PROFILE, "--port", port, "--timeout", 0.5)
        assert result.returncode == 2
        assert "nothing of this skin came to port" in result.stderr
        assert result.stdout.count("packets of another skin or other settings come: profile, --ratio") == 1
        # And beside a stream that is right.
        with Feeder(mat.folder, port, seed=1), Feeder(mat.folder, port):
            result = command("skin", "receive", *PROFILE, "--port", port, "--frames", 50)
        assert ran(result).count("other settings") == 1
        assert "ended: " in result.stdout

    def test_noise_on_the_port_is_counted(self, here, command, mat, port):
        rng = np.random.default_rng(0)
        with Feeder(mat.folder, port) as feeder:
            feeder.bus.send([rng.bytes(int(size)) for size in rng.integers(0, 1400, 20)])
            timer = threading.Timer(0.5, feeder.bus.send, [[b"Pr", b"", b"Pq" + bytes(18)]])
            timer.start()
            report = of_json(command("skin", "receive", *PROFILE, "--port", port, "--frames", 200, "--json"))
            timer.join()
        assert report["frames"] >= 200
        assert report["counts"]["damaged"] >= 1

    def test_nothing_comes(self, here, command, port):
        message = refused(command("skin", "receive", *PROFILE, "--port", port, "--timeout", 0.1, "--json"))
        assert f"nothing of this skin came to port {port} in 0.1 s; allowed: a sender" in message

    def test_a_port_in_use(self, here, command):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            (here / "t.mcap").write_bytes(b"before")
            message = refused(command("skin", "receive", *PROFILE, "--port", port, "--out", "t.mcap"))
        assert f"port is {port}, which is in use at 127.0.0.1; allowed: a free port" in message
        assert (here / "t.mcap").read_bytes() == b"before"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--port", -1), "port is -1; allowed"),
            (("--port", 65536), "port is 65536; allowed"),
            (("--port", 0, "--host", "none.invalid"), "host is 'none.invalid', which is not known; allowed"),
            (("--port", 0, "--frames", 0), "--frames is 0; allowed: a number > 0"),
            (("--port", 0, "--timeout", "nan"), "--timeout is nan; allowed: a number > 0"),
            (("--port", 0, "--out", "t.bag"), "--out is t.bag; allowed: a file that ends in .mcap"),
            (("--port", 0, "--out", "no/t.mcap"), "is missing; allowed: an existing folder"),
            (("--port", 0, "--bits", 1), "bits is 1; allowed"),
            (("--port", 0, "--seed", -1), "seed is -1; allowed"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        assert words in refused(command("skin", "receive", *PROFILE, *arguments))

    def test_a_folder_that_is_not_writable(self, here, run_apart):
        (here / "closed").mkdir(mode=0o500)
        options = ("--port", 0, "--out", "closed/t.mcap")
        message = refused(run_apart("skin", "receive", *PROFILE, *options, preexec_fn=without_privileges))
        assert "is not writable; allowed: a writable folder" in message


class TestSend:
    def test_to_nobody(self, here, command, port):
        options = ("--to", f"127.0.0.1:{port}", "--rate", 1000, "--json")
        report = of_json(command("skin", "send", "touch.npz", *PROFILE, *options))
        assert report["frames"] == 200
        assert report["bytes_per_frame"] == 96 + 8 * 22
        assert report["packets_refused"] > 0

    def test_at_its_rate(self, here, command, port):
        said = ran(command("skin", "send", "touch.npz", *PROFILE, "--to", f"127.0.0.1:{port}"))
        assert f"touch.npz: 200 frames, 100 a second to 127.0.0.1:{port}, 4:1 in 12 bits" in said
        rate = float(re.search(r"ended: 200 frames sent, ([\d.]+) a second", said)[1])
        assert 60 < rate < 105
        assert re.search(r"^1\d\d frames sent", said, re.MULTILINE)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("touch.npz", "--to", "localhost"), "--to is 'localhost'; allowed: HOST:PORT"),
            (("touch.npz", "--to", "localhost:0"), "--to is 'localhost:0'; allowed: HOST:PORT"),
            (("touch.npz", "--to", "localhost:99999"), "a port from 1 to 65535"),
            (("touch.npz", "--to", ":5"), "--to is ':5'; allowed: HOST:PORT"),
            (("touch.npz", "--to", "none.invalid:5"), "host is 'none.invalid', which is not known"),
            (("touch.npz", "--to", "localhost:5", "--rate", 0), "rate is 0.0; allowed"),
            (("narrow.npy", "--to", "localhost:5"), "has 255 numbers a frame; allowed: 256"),
            (("nan.npy", "--to", "localhost:5"), "holds nan in frame 0"),
            (("empty.npy", "--to", "localhost:5"), "has no frames; allowed: one or more"),
        ],
    )
    def test_mistakes_are_one_line(self, here, command, arguments, words):
        np.save(here / "narrow.npy", np.ones((3, 255)))
        np.save(here / "nan.npy", np.full((3, SIDE**2), np.nan))
        np.save(here / "empty.npy", np.ones((0, SIDE**2)))
        assert words in refused(command("skin", "send", *arguments, *PROFILE))
