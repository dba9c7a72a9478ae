"""Both ends of a live stream, without a network between."""

import numpy as np
import pytest

from persianrug.skin import Frames, Layout, LiveReceiver, LiveSender, Request, SkinProfile, packets_of
from persianrug.skin.benchmark import warm
from tests.cli.skins import SIDE, blobs


@pytest.fixture(scope="module")
def profile():
    return SkinProfile.fit(Frames(blobs(200)), Layout.plane(SIDE, SIDE, 0.01))


class Bus:
    """Packets handed over by a test."""

    def __init__(self):
        self.packets, self.replies = [], []

    def send(self, packets):
        self.packets += packets

    def receive(self, timeout=0.0):
        given, self.packets = self.packets, []
        return given

    def reply(self, content):
        self.replies.append(content)
        return True


class TestLive:
    """The two ends, on a clock of the test's."""

    @pytest.fixture
    def ends(self, profile):
        bus, clock = Bus(), [0.0]
        sender = LiveSender(profile.encoder(4), bus, 4)
        receiver = LiveReceiver(profile, profile.encoder(4), bus, lambda: clock[0])
        warm(profile, profile.encoder(4))
        return sender, receiver, bus, clock

    def test_a_slow_receiver_leaves_out_whole_frames(self, ends):
        sender, receiver, *_ = ends
        for frame in blobs(50):
            sender.send(frame)
        felt = receiver.receive()
        assert (len(felt), receiver.skipped, receiver.frames) == (8, 42, 8)
        assert felt[-1].estimate.frame == sender.encoder.frame - 1
        assert receiver.lost == 0

    def test_patches_are_not_valid_in_silence(self, ends):
        sender, receiver, _, clock = ends
        for frame in blobs(40)[30:]:
            sender.send(frame)
            clock[0] += 0.01
            receiver.receive()
        assert [one.valid for one in receiver.contacts] == [True]
        clock[0] += 0.039
        receiver.receive()
        assert [one.valid for one in receiver.contacts] == [True]
        clock[0] += 0.002
        receiver.receive()
        assert [one.valid for one in receiver.contacts] == [False]

    def test_the_last_frame_does_not_wait_for_ever(self, ends):
        sender, receiver, bus, clock = ends
        sender.send(blobs(31)[30])
        del bus.packets[1]
        assert receiver.receive() == []
        clock[0] += 0.021
        (felt,) = receiver.receive()
        assert felt.estimate.heard.all()
        assert receiver.lost == pytest.approx(0.25)

    def test_more_rows_explain_a_frame(self, ends):
        sender, receiver, bus, clock = ends
        sender.send(blobs(31)[30])
        del bus.packets[1:]
        receiver.receive()
        clock[0] += 0.021
        (felt,) = receiver.receive()
        assert not felt.estimate.explained.all()
        asked = 0
        assert bus.replies
        while bus.replies:
            bus.packets, bus.replies = bus.replies, []
            sender.answer()
            asked += 1
            (again,) = receiver.receive()
            assert again.again
            assert again.estimate.frame == felt.estimate.frame
        assert asked == sender.answered <= 2
        errors = [np.abs(one.estimate.x.ravel() - blobs(31)[30]).max() for one in (felt, again)]
        assert errors[1] < errors[0]
        assert receiver.frames == 1

    def test_answers_of_an_older_frame_are_left_out(self, ends):
        sender, receiver, bus, _ = ends
        frames = blobs(40)[30:]
        sender.send(frames[0])
        number = sender.encoder.frame - 1
        receiver.receive()
        for frame in frames[1:]:
            sender.send(frame)
            receiver.receive()
        code = sender.encoder.more(number, 0, 64, 16)
        bus.send(packets_of(code, sender.encoder.stream))
        assert receiver.receive() == []
        # And those that nobody of this skin asks for are not answered.
        bus.packets = [Request(sender.encoder.stream ^ 1, number, 0, 64, 16).pack(), b"Pq", b""]
        sender.answer()
        assert (sender.answered, sender.refused) == (0, 3)
        assert bus.packets == []
