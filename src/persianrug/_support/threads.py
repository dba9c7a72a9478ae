"""How many threads work, and on what.

PyTorch's threads, and those of the fast kernel, meet at the end of every operation and wait there by spinning.
Where other programs use the same cores, every meeting waits until all threads have had their turn: tens of
times as long as the work takes. Threads that each do whole chunks of rows, by operations of one thread, meet once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """With one thread of PyTorch: sums in another order have other last bits, and little work needs no more."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def share(function: Callable[[int], None], count: int, least: int = 1) -> None:
    """Call `function` with 0 to count - 1, on as many threads as PyTorch has here, of at least so many calls each.

    Operations of PyTorch run on one thread meanwhile, in the caller's modes of gradients. Threads live only as
    long as the call, which takes part in the work: 0.1 ms each is little beside work that is worth sharing, and a
    forked process, or one that ends, has none to miss. If calls fail, no more are begun, and of the errors that of
    the least number is raised, as it would be without threads.
    """
    import torch

    threads = min(torch.get_num_threads(), count // least)
    if threads < 2:
        with one_thread():
            for item in range(count):
                function(item)
        return
    items, errors = deque(range(count)), {}
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work() -> None:
        while True:
            try:
                item = items.popleft()
            except IndexError:
                return
            try:
                function(item)
            except BaseException as error:
                # Before anything else, that none of those after it is begun.
                items.clear()
                errors[item] = error
                return

    def help_out() -> None:
        # Both are of one thread only.
        torch.set_num_threads(1)
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            work()

    helpers = [threading.Thread(target=help_out) for _ in range(threads - 1)]
    started = []
    with one_thread():
        try:
            for helper in helpers:
                try:
                    helper.start()
                except RuntimeError:
                    # The system has no more, as at the end of the interpreter.
                    break
                started.append(helper)
            work()
        finally:
            # An interrupt may have come between.
            items.clear()
            for helper in started:
                helper.join()
    if errors:
        raise errors[min(errors)]
