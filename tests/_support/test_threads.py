"""Work on several threads: the same answers, the caller's modes and errors, and nothing left behind."""

import multiprocessing
import signal
import threading
import time

import numpy as np
import pytest
import torch

import persianrug as pr
from persianrug._support import arrays
from persianrug._support.arrays import bounded, map_rows
from persianrug._support.threads import one_thread, share

SOURCE = pr.SparseUniform(0.1)


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(arrays, "_CHUNK_BYTES", 4096)


def test_every_item_is_done_once_by_as_many_threads_as_there_are(threads):
    done, seen = [], set()
    together = threading.Barrier(threads)

    def item(k):
        if k < threads:
            together.wait(timeout=60)
        assert torch.get_num_threads() == 1
        seen.add(threading.get_ident())
        done.append(k)

    share(item, 20)
    assert sorted(done) == list(range(20))
    assert len(seen) == threads
    assert torch.get_num_threads() == threads
    assert threading.active_count() == 1 or not any("help_out" in t.name for t in threading.enumerate())


def test_one_that_is_shared_shares_no_further(threads):
    inner = []

    def item(_):
        mine = threading.get_ident()
        share(lambda _: inner.append(threading.get_ident() == mine), 3)

    share(item, 4)
    assert inner == [True] * 12


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_first_error_reaches_the_caller_and_ends_the_work(kind, threads):
    done = []

    def item(k):
        done.append(k)
        if k >= 3:
            raise kind(str(k))

    with pytest.raises(kind, match=r"^3$"):
        share(item, 1000)
    assert len(done) < 1000
    assert torch.get_num_threads() == threads


def test_an_interrupt_ends_the_work(threads):
    done = []

    def item(k):
        if k == 2:
            signal.raise_signal(signal.SIGINT)
        done.append(k)
        time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        share(item, 5000)
    assert len(done) < 5000
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_modes_of_gradients_are_the_callers(mode, threads):
    seen = []
    with mode():
        wanted = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        share(lambda _: seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled())), 8)
    assert seen == [wanted] * 8


def test_where_the_system_has_no_threads_the_caller_works_alone(monkeypatch, threads):
    def none(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    done = []
    share(done.append, 9)
    assert done == list(range(9))


def test_one_thread_is_undone_by_errors():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        print(1 / (torch.get_num_threads() - 1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("decoder", [pr.ReLU, pr.TopK, pr.Bayes, pr.OAMP])
@pytest.mark.parametrize("n", [64, 100])
def test_answers_depend_neither_on_threads_nor_on_chunks(decoder, n, monkeypatch):
    model = pr.Autoencoder(pr.Rug.of_ratio(n, 0.5), decoder()).tune(SOURCE)
    x = SOURCE.sample(150, n, seed=0, dtype=torch.float64)
    before, found = torch.get_num_threads(), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        for size in (1 << 21, 1 << 13, 1 << 9):
            monkeypatch.setattr(arrays, "_CHUNK_BYTES", size)
            monkeypatch.setattr("persianrug.decoders.oamp._CHUNK", size)
            found.append(model(x))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.allclose(other, found[0], rtol=0, atol=1e-13)
    # Threads alone change nothing at all.
    for k in range(3):
        assert torch.equal(found[k], found[k + 3])
        assert torch.equal(found[k], found[k + 6])


def test_results_are_tensors_of_the_mode(small_chunks, threads):
    x = torch.ones(100, 64)
    assert not map_rows(lambda rows: rows + 1, x, 64).is_inference()
    with torch.inference_mode():
        assert map_rows(lambda rows: rows + 1, x, 64).is_inference()
    wanted = x.requires_grad_()
    assert map_rows(lambda rows: rows * 2, wanted, 64).sum().backward() is None
    assert torch.equal(wanted.grad, torch.full((100, 64), 2.0))


def test_numbers_are_checked_in_every_chunk(small_chunks, threads):
    rug = pr.Rug(64, 32)
    x = np.ones((500, 64))
    for row, bad in ((0, np.nan), (250, np.inf), (499, -np.inf)):
        wrong = x.copy()
        wrong[row, 5] = bad
        with pytest.raises(ValueError, match="x holds NaN or infinity"):
            rug.encode(wrong)
        with pytest.raises(ValueError, match="y holds NaN or infinity"):
            bounded("y", torch.from_numpy(wrong), 1e30)
    x[333, 7], x[444, 0] = -3.0, 5.0
    assert bounded("y", torch.from_numpy(x), 1e30) == (-3.0, 5.0)


def _work(model, x, answers):
    # By NumPy: what PyTorch itself does on several threads hangs in a forked process, as everywhere.
    answers.put(float(model(x).numpy().sum()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_works_on_after_use(small_chunks, threads):
    model = pr.Autoencoder(pr.Rug(256, 64), pr.OAMP()).tune(SOURCE)
    x = SOURCE.sample(200, 256, seed=0)
    expected = float(model(x).numpy().sum())
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_work, args=(model, x, answers))
    child.start()
    assert answers.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
