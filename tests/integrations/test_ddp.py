import importlib.util
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from persianrug.integrations.ddp import SketchState, plan, sketch_hook

WORKERS = 2
SHAPES = ((64, 100), (3000,), (90, 70), (7,), (300, 1000))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What every function of SCENARIOS returned in each of two processes."""
    # All at once, as it takes seconds to start them.
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(work, (folder,), nprocs=WORKERS)
    results = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORKERS)]
    return {name: [result[name] for result in results] for name in SCENARIOS}


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS)
    torch.save({name: scenario(rank) for name, scenario in SCENARIOS.items()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


class Given(torch.nn.Module):
    """A module with the gradients that it is given."""

    def __init__(self, shapes=SHAPES, dtype=torch.float32):
        super().__init__()
        # One of them is not contiguous.
        zeros = [torch.zeros(shape[::-1], dtype=dtype).T if k == 2 else torch.zeros(shape, dtype=dtype)
                 for k, shape in enumerate(shapes)]  # fmt: skip
        self.parts = torch.nn.ParameterList(zeros)

    def forward(self, gradients):
        return sum((part * gradient).sum() for part, gradient in zip(self.parts, gradients, strict=True))


def draws(rank, step, shapes=SHAPES, dtype=torch.float32):
    """Gradients of a worker at a step, with tails heavier than a normal's."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return [torch.randn(shape, generator=generator, dtype=dtype) ** 3 for shape in shapes]


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


class Run:
    """A DDP model that is given gradients; it notes buckets, and the bytes of all all-reduces."""

    def __init__(self, state, shapes=SHAPES, dtype=torch.float32, **options):
        self.net = Given(shapes, dtype)
        self.model = DistributedDataParallel(self.net, **options)
        self.state, self.buckets, self.bytes = state, [], 0
        self.model.register_comm_hook(None, self.hook)

    def hook(self, _, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.buckets[-1].append(tuple(tuple(one.shape) for one in bucket.parameters()))
        plain = dist.all_reduce

        def counted(tensor, *arguments, **options):
            self.bytes += tensor.nbytes
            return plain(tensor, *arguments, **options)

        dist.all_reduce = counted
        try:
            return sketch_hook(self.state, bucket)
        finally:
            dist.all_reduce = plain

    def step(self, gradients):
        self.buckets.append([])
        self.model.zero_grad()
        self.model(gradients).backward()
        return flat(part.grad for part in self.net.parts)

    def memory(self):
        """What is not sent yet, in the order of the parameters."""
        numbers = self.state._numbers
        kept = []
        for part in self.net.parts:
            values = self.state._memory[numbers[part]]
            kept.append(values.view(part.T.shape).T if not part.is_contiguous() else values.view(part.shape))
        return flat(kept)


def summed(runs, key):
    return sum(run[key].double() for run in runs)


def relative(error, total):
    return float(error.norm() / total.norm())


def sparse_gradients(rank, dtype, code_dtype):
    size, workers = 40_000, dist.get_world_size()
    state = SketchState(dist.new_group([0, 1]), ratio=0.25, code_dtype=code_dtype)
    sketch = plan(size, 0.25, code_dtype, workers, 0)
    generator = torch.Generator().manual_seed(rank)
    blocks = torch.zeros(-(-size // sketch.rug.n_sparse), sketch.rug.n_sparse, dtype=dtype)
    for block in blocks:
        # Not where padding may be.
        places = torch.randperm(sketch.rug.n_sparse - 300, generator=generator)[: sketch.kept]
        block[places] = torch.randn(sketch.kept, generator=generator, dtype=dtype)
    gradient = sketch.flat(blocks)
    run = Run(state, ((size,),), dtype)
    mean = run.step([gradient])
    return {
        "gradient": gradient,
        "mean": mean,
        "left": run.memory(),
        "recovered": state.recovered,
        "at": mean.dtype,
    }


@pytest.mark.parametrize(("name", "error"), [("double", 1e-6), ("single", 1e-5), ("half", 0.01)])
def test_sums_of_codes_are_decoded_exactly(runs, name, error):
    one, other = runs[name]
    total = summed(runs[name], "gradient")
    assert relative(WORKERS * one["mean"].double() - total, total) < error
    for run in one, other:
        assert run["at"] == run["gradient"].dtype
        assert run["recovered"] == 1
        assert (run["left"] == 0).all()
    assert torch.equal(one["mean"], other["mean"])


def steps_in_several_buckets(rank):
    state = SketchState(ratio=0.25, start_iter=0, code_dtype=torch.float32)
    run = Run(state, bucket_cap_mb=0.05)
    steps = []
    for step in range(4):
        gradient = draws(rank, step)
        mean = run.step(gradient)
        steps.append(
            {"gradient": flat(gradient), "mean": mean, "left": run.memory(), "recovered": state.recovered}
        )
    counts = state.bytes_sent, state.bytes_dense, run.bytes
    # As after a restart: DDP sorts parameters into its first buckets again.
    state = pickle.loads(pickle.dumps(state))
    restarted = Run(state, bucket_cap_mb=0.05)
    for step in range(4, 6):
        gradient = draws(rank, step)
        mean = restarted.step(gradient)
        steps.append(
            {"gradient": flat(gradient), "mean": mean, "left": restarted.memory(), "recovered": state.recovered}
        )
    return {
        "steps": steps,
        "buckets": run.buckets,
        "again": restarted.buckets,
        "counts": counts,
        "iter": state.iter,
    }


def test_nothing_is_lost_when_buckets_change_or_training_restarts(runs):
    runs = runs["buckets"]
    first, second, *others = runs[0]["buckets"]
    assert len(second) > 1
    assert first != second == others[0] == others[1]
    assert runs[0]["again"] == [first, second]
    sent = all_gradients = 0
    for steps in zip(*(run["steps"] for run in runs), strict=True):
        assert torch.equal(steps[0]["mean"], steps[1]["mean"])
        assert steps[0]["recovered"] == 1
        sent = sent + WORKERS * steps[0]["mean"].double()
        all_gradients = all_gradients + summed(steps, "gradient")
        left = summed(steps, "left")
        assert relative(left, all_gradients) > 0.1
        assert relative(sent + left - all_gradients, all_gradients) < 1e-5
    assert runs[0]["iter"] == 6


def test_bytes_are_those_of_the_all_reduces(runs):
    for run in runs["buckets"]:
        sent, dense, counted = run["counts"]
        assert sent == counted
        assert dense == 4 * 4 * sum(int(np.prod(shape)) for shape in SHAPES)
        small = [bucket for step in run["buckets"] for bucket in step if sum(map(np.prod, bucket)) < 2048]
        rest = 4 * sum(int(np.prod(shape)) for bucket in small for shape in bucket)
        assert 0.24 * (dense - rest) < sent - rest <= 0.25 * (dense - rest)


def dense_first(rank):
    run = Run(SketchState(ratio=0.125, start_iter=2))
    means = [run.step(draws(rank, step)) for step in range(3)]
    small = Run(SketchState(ratio=0.125), ((2047,),))
    means.append(small.step(draws(rank, 0, ((2047,),))))
    return means, (run.state.bytes_sent, run.bytes, run.state.bytes_dense), small.state.bytes_sent


def test_first_steps_and_small_buckets_are_sent_as_they_are(runs):
    runs = runs["dense first"]
    for step in range(2):
        total = sum(flat(draws(rank, step)) for rank in range(WORKERS))
        torch.testing.assert_close(WORKERS * runs[0][0][step], total)
    total = sum(flat(draws(rank, 0, ((2047,),))) for rank in range(WORKERS))
    torch.testing.assert_close(WORKERS * runs[0][0][3], total)
    for _, (sent, counted, dense), small in runs:
        assert sent == counted
        assert 2 / 3 + 0.12 / 3 < sent / dense <= 2 / 3 + 0.125 / 3
        assert small == 4 * 2047


def not_finite(rank, value):
    shapes = SHAPES[:4]
    run = Run(SketchState(ratio=0.25), shapes)
    run.step(draws(rank, 0, shapes))
    before = run.memory()
    gradient = draws(rank, 1, shapes)
    if rank == 1:
        gradient[0][3, 4] = value
    poisoned = run.step(gradient)
    return {
        "poisoned": poisoned,
        "same": torch.equal(before, run.memory()),
        "after": run.step(draws(rank, 2, shapes)),
    }


@pytest.mark.parametrize("name", ["infinite", "not a number"])
def test_a_gradient_that_is_not_finite_reaches_everyone_and_no_memory(runs, name):
    for run in runs[name]:
        assert run["poisoned"].isnan().all()
        assert run["same"]
        assert run["after"].isfinite().all()


def extreme(rank):
    means = {}
    for scale in (0.0, 1e-30, 1e25):
        run = Run(SketchState(ratio=0.25))
        means[scale] = run.step([scale * part for part in draws(rank, 0)])
    return means


def test_gradients_of_any_size(runs):
    means = runs["extreme"][0]
    assert (means[0.0] == 0).all()
    assert (
        relative(means[1e25].double() / 1e25 - means[1e-30].double() / 1e-30, means[1e25].double() / 1e25) < 0.02
    )


def trained(rank):
    """Losses after a training on digits with each hook, and the parameters of the last."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images / 16 - 0.3).float(), torch.from_numpy(labels)
    losses = []
    for state, hook in ((None, allreduce_hook), (SketchState(ratio=0.25), sketch_hook)):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        model = DistributedDataParallel(net)
        model.register_comm_hook(state, hook)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=100)
        for batch in (
            torch.randperm(1300, generator=torch.Generator().manual_seed(rank)).repeat(10)[:6400].split(64)
        ):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            losses.append(
                [float(F.cross_entropy(net(x[part]), y[part])) for part in (slice(1300), slice(1300, None))]
            )
    return losses, flat(net.parameters()), state.bytes_sent / state.bytes_dense


def test_digits_are_learned_as_well_with_a_quarter_of_the_bytes(runs):
    (losses, parameters, ratio), (_, others, _) = runs["digits"]
    assert torch.equal(parameters, others)
    assert ratio <= 0.25
    plain, sketched = losses
    assert 0.01 < plain[0] < 0.2
    for ours, theirs in zip(sketched, plain, strict=True):
        assert ours < 1.05 * theirs


def refused_in_training(rank):
    errors = []
    for state, dtype in ((SketchState(), torch.bfloat16), (SketchState(ratio=1e-4), torch.float32)):
        run = Run(state, ((64, 100),), dtype)
        errors.append(_error(lambda run=run, dtype=dtype: run.step(draws(rank, 0, ((64, 100),), dtype))))
    table = torch.nn.Embedding(100, 64, sparse=True)
    model = DistributedDataParallel(table)
    model.register_comm_hook(SketchState(), sketch_hook)
    errors.append(_error(lambda: model(torch.arange(3)).sum().backward()))
    state = SketchState()
    Run(state, ((64, 100),)).step(draws(rank, 0, ((64, 100),)))
    run = Run(pickle.loads(pickle.dumps(state)), ((64, 101),))
    errors.append(_error(lambda: run.step(draws(rank, 0, ((64, 101),)))))
    return errors


def _error(function):
    try:
        function()
    except ValueError as error:
        return str(error)
    return None


def test_refusals_in_training(runs):
    dtype, ratio, layout, memory = runs["refused"][0]
    assert "gradients are torch.strided of torch.bfloat16; allowed: torch.strided of torch.float32" in dtype
    assert "ratio is 0.0001; allowed with 2 workers: more" in ratio
    assert "gradients are torch.sparse_coo of torch.float32; allowed: torch.strided" in layout
    assert "parameter 0 has 6464 numbers; allowed with the state's memory: 6400" in memory


SCENARIOS = {
    "double": partial(sparse_gradients, dtype=torch.float64, code_dtype=torch.float32),
    "single": partial(sparse_gradients, dtype=torch.float32, code_dtype=torch.float32),
    "half": partial(sparse_gradients, dtype=torch.float32, code_dtype=torch.bfloat16),
    "buckets": steps_in_several_buckets,
    "dense first": dense_first,
    "infinite": partial(not_finite, value=float("inf")),
    "not a number": partial(not_finite, value=float("nan")),
    "extreme": extreme,
    "refused": refused_in_training,
}
if importlib.util.find_spec("sklearn"):
    SCENARIOS["digits"] = trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0}, "ratio is 0; allowed: a number > 0 and < 0.5 with codes of torch.bfloat16"),
        ({"ratio": 0.5}, "ratio is 0.5; allowed: a number > 0 and < 0.5"),
        ({"ratio": "0.25"}, "ratio is '0.25'; allowed: a number > 0"),
        ({"ratio": 1, "code_dtype": torch.float32}, "ratio is 1; allowed: a number > 0 and < 1 with"),
        ({"seed": -1}, "seed is -1; allowed: an integer from 0 to"),
        ({"start_iter": 1.5}, "start_iter is 1.5; allowed: an integer >= 0"),
        ({"code_dtype": torch.int8}, "code_dtype is torch.int8; allowed: torch.bfloat16, torch.float32"),
        ({"process_group": 3}, "process_group is 3; allowed: a torch.distributed.ProcessGroup, None"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        SketchState(**arguments)


def test_repr_and_pickle():
    state = SketchState(ratio=0.125, seed=3, start_iter=10, code_dtype=torch.float32)
    assert repr(state) == "SketchState(ratio=0.125, seed=3, start_iter=10, code_dtype=torch.float32)"
    assert repr(pickle.loads(pickle.dumps(state))) == repr(state)
    assert state.recovered == 1


def test_sketches_fit_their_bytes():
    for size in (2048, 2049, 5000, 8193, 85_002, 1_000_000):
        for ratio in (0.05, 0.25, 0.45):
            for code_dtype in (torch.bfloat16, torch.float32):
                sketch = plan(size, ratio, code_dtype, 2, 0)
                blocks = sketch.blocks(torch.arange(size, dtype=torch.float32))
                assert torch.equal(sketch.flat(blocks), torch.arange(size, dtype=torch.float32))
                numbers = len(blocks) * sketch.rug.n_dense
                assert numbers * code_dtype.itemsize <= 4 * ratio * size
                assert (numbers + len(blocks)) * code_dtype.itemsize > 4 * ratio * size
                assert 2 * sketch.kept < sketch.rug.n_dense
