"""Pages about runs: they need nothing else, and say what the log says."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from persianrug.robots import page as module
from persianrug.robots import page_figures
from persianrug.robots.log import LogPart
from persianrug.robots.page import page, write_page
from tests.robots.toys import make_log

OUTCOME = {
    "succeeded": True,
    "reason": "",
    "skin": {
        "ratio": 0.0625, "frames": 100, "explained": 0.99, "packets_lost": 0.051, "force_error_predicted": 0.012,
        "force_error_measured": 0.0134, "bytes_per_second": 132800.0,
    },
    "timing": {"wall": 8.1, "real_time": 2.1, "control_p99": 0.00123, "steps_per_second": 12345.6},
    "drawn": {"bar": 0.0812, "full": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def log():
    log = make_log(1.2)
    log.meta["outcome"] = OUTCOME
    return log


class Reader(HTMLParser):
    """The texts of a page, and what its tags point to."""

    def __init__(self):
        super().__init__()
        self.texts, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.links += [(tag, value) for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def read(content):
    reader = Reader()
    reader.feed(content.decode())
    assert reader.open == []
    return " ".join(" ".join(reader.texts).split()), reader.links


def test_it_needs_nothing_else(log):
    content = page(log)
    _, links = read(content)
    assert all(link.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for _, link in links)
    assert b"<script" not in content
    assert re.search(rb"url\(|@import|https?://", content.replace(b"http://www.w3.org", b"")) is None
    for _, link in links:
        kind, _, text = link.partition(";base64,")
        picture = base64.b64decode(text)
        if kind == "data:image/svg+xml":
            root = ElementTree.fromstring(picture)
            assert root.tag.endswith("svg")
        else:
            assert picture.startswith(b"\x89PNG")
    # Timeline, feet, hands, the moment, and the skin.
    assert len(links) == 5


def test_it_says_how_it_ended(log):
    text, _ = read(page(log))
    for part in (
        "Box with a paddle: drop", "Succeeded after 1.2 s of simulated time", "Seed 0.", "a skin of 80 taxels",
        "skin stiff", "feels the floor", "0.90 s feels a pull of 6.1 N", "The skin as it lets go",
        "numbers sent for one that is felt 0.0625, 1 for 16", "sent 132.8 kB a second", "frames 100",
        "packets lost on the bus 5.1%", "frames explained by what was decoded 99%",
        "error of net forces, predicted 0.012 N", "error of net forces, measured 0.0134 N",
        "bar 0.0812", "full yes",
        "within 1.23 ms", "simulated seconds in one of computing 2.10", "No film was drawn.",
    ):  # fmt: skip
        assert part in text, part


def test_of_a_run_that_was_interrupted():
    log = make_log(0.5)
    log.meta["outcome"] = {"succeeded": None, "reason": "interrupted"}
    text, links = read(page(log, missing="no OpenGL <b>here</b>"))
    assert "Not ended after 0.5 s of simulated time: interrupted." in text
    assert "No film was drawn: no OpenGL <b>here</b>." in text
    # There is no moment of letting go.
    assert "The skin at the end" in text
    assert len(links) == 4


def test_without_a_skin():
    text, links = read(page(make_log(1.0, skin="truth")))
    assert "It feels contacts as they are, without a skin." in text
    assert len(links) == 4


def test_a_film_is_within_it_or_beside(log, tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"film")
    _, links = read(page(log, tmp_path / "film.mp4"))
    assert links[0] == ("video", f"data:video/mp4;base64,{base64.b64encode(b'film').decode()}")
    monkeypatch.setattr(module, "_MOST_FILM", 3)
    _, links = read(page(log, tmp_path / "film.mp4"))
    assert links[0] == ("video", "film.mp4")


def test_it_is_written_whole(log, tmp_path):
    size = write_page(log, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size == size < 2_000_000
    with pytest.raises(ValueError, match="the log is empty"):
        write_page(make_log(0.0), tmp_path / "page.html")


def test_figures_show_the_numbers(log):
    figure = page_figures.foot_forces(log)
    felt = figure.axes[0].lines[0]
    time, values = felt.get_data()
    assert time == pytest.approx(0.04 * np.arange(30) + 0.018)
    assert values[-1] == pytest.approx(log["pressing_felt"][-10:, 0].mean())
    assert figure.axes[0].get_ylabel() == "sole (N)"
    pull = page_figures.letting_go(log).axes[0]
    at = next(part.at for part in log.parts if part.name == "let go")
    assert [float(line.get_xdata()[0]) for line in pull.lines if "lets go, " in str(line.get_label())] == [at]
    assert [line.get_ydata()[0] for line in pull.lines if "above 6 N" in str(line.get_label())] == [6.0]
    assert (pull.get_xlabel(), pull.get_ylabel()) == ("simulated time (s)", "pull (N)")


def test_a_timeline_tells_what_was_not_done(log):
    log = make_log(1.2)
    log.parts = [LogPart("fall", True, 0.3), LogPart("lie", False, 0.9), LogPart("rise", False, None)]
    axes = page_figures.timeline(log).axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["0.3 s", "0.9 s, not done", "not come to"]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert np.ravel(bars) == pytest.approx([0, 0.3, 0.3, 0.6])


def test_what_is_not_believed_is_shown():
    log = make_log(1.0)
    log["valid"][100:150, 0] = False
    shaded = page_figures.foot_forces(log).axes[0].collections
    assert [one.get_label() for one in shaded] == ["true", "not believed"]
    corners = shaded[1].get_paths()[0].vertices[:, 0]
    assert (corners.min(), corners.max()) == pytest.approx((0.4, 0.6))
    assert "the background is light red where it does not believe that" in read(page(log))[0]


def test_a_short_doubt_is_seen_and_none_is_not_told_of():
    log = make_log(1.0)
    assert "does not believe" not in read(page(log))[0]
    # One tick, and the last ones.
    log["valid"][100, 0] = log["valid"][-3:, 0] = False
    shaded = page_figures.foot_forces(log).axes[0].collections[1]
    widths = [np.ptp(path.vertices[:, 0]) for path in shaded.get_paths()]
    assert widths == pytest.approx([0.04, 0.04])


def test_no_force_is_cut_off():
    log = make_log(1.0)
    log.worn = dataclasses.replace(log.worn, feet=("sole", "palm"))
    # What is drawn last is largest.
    log["pressing_true"][100:150, 1], log["pressing_true"][100:150, 0] = 700.0, 100.0
    feet, hand = page_figures.foot_forces(log).axes, page_figures.hand_forces(log).axes[0]
    for axes in (*feet, hand):
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 700


def test_the_pull_reaches_as_high_as_it_did():
    log = make_log(1.0)
    log["pull"][:] = 0.0
    log["pull"][123] = 9.0
    time, pull = page_figures.hand_forces(log).axes[-1].lines[0].get_data()
    assert pull.max() == 9.0
    assert time[pull.argmax()] == pytest.approx(log["time"][123], abs=0.04)


def test_where_nothing_is_gripped_no_grip_is_shown():
    log = make_log(1.0)
    log.parts = log.parts[:1]
    log["pressing_true"][:, 1] = 0.2
    text, links = read(page(log))
    assert "Grip and pull" not in text
    assert "Taxels of its feet at" in text
    # Timeline, feet and the skin.
    assert len(links) == 3
    log["pressing_true"][5, 1] = 2.0
    assert "Grip and pull" in read(page(log))[0]


def test_of_the_truth_no_code_is_told():
    log = make_log(0.5, skin="truth")
    log.meta["options"] = {"skin": "truth", "ratio": 0.0625, "packet_loss": 0.05, "speed": 1.0}
    text, _ = read(page(log))
    assert "skin truth, speed 1" in text
    assert "ratio" not in text
    assert "packet loss" not in text


def test_numbers_are_short_also_in_lists(log):
    log.meta["outcome"] = {
        **OUTCOME,
        "drawn": {"pushes": [0.12345678901234567, [1.0, 2 / 3]], "by": {"a_b": 1 / 3}},
    }
    text, _ = read(page(log))
    log.meta["outcome"] = OUTCOME
    assert "pushes [0.1235, [1, 0.6667]]" in text
    assert "by a b 0.3333" in text
