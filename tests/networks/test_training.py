"""Trained networks: what they reach, that their training is right to the bit, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import persianrug as pr
from persianrug._support.tensors import read_tensors, write_tensors
from persianrug.networks.descent import Descent, train, train_many
from persianrug.networks.network import ACTIVATIONS, Network
from persianrug.networks.training import Training

SOURCE = pr.SparseUniform(0.045)
CPU = torch.device("cpu")


def short(**rest):
    return Training(**{"n_sparse": 32, "n_dense": 8, "source": SOURCE, "batch": 64, "steps": 60, **rest})


def run_of(*trainings):
    """The state before the first step, in double precision, away from what makes features alike."""
    run = Descent(trainings, CPU, torch.float64)
    generator = torch.Generator().manual_seed(1)
    run.parameters.add_(torch.randn(run.parameters.shape, generator=generator, dtype=torch.float64), alpha=0.1)
    run.weights["W_out"].mul_(3.0)
    return run


def same(a, b):
    return all(torch.equal(one, b.tensors()[name]) for name, one in a.tensors().items())


def test_samples_take_it_below_the_rug():
    result = train(Training.of_ratio(64, 0.25, SOURCE, batch=256, steps=1500))
    rug = pr.Autoencoder(pr.Rug(64, 16), pr.ReLU()).tune(SOURCE)
    assert result.loss + 3 * result.stderr < 0.9 * rug.limit(SOURCE)
    assert result.trace[0, 1] > 2 * result.trace[-1, 1]
    assert result.trace[-1, 1] == pytest.approx(result.loss, rel=0.1)
    assert result.trace[-1, 0] == result.steps == 1500
    assert 0 < result.stderr < 0.02 * result.loss


@pytest.mark.parametrize(("p", "ratio"), [(0.045, 0.25), (0.3, 0.5)])
def test_the_closure_ends_at_the_law_of_the_rug(p, ratio):
    source = pr.SparseUniform(p)
    result = train(Training.of_ratio(128, ratio, source, method="closure", steps=800))
    rug = pr.Autoencoder(pr.Rug.of_ratio(128, ratio), pr.ReLU()).tune(source).limit(source)
    # No symmetric W is better, and no other has been found.
    assert rug * (1 - 1e-4) < result.trace[-1, 1] < 1.005 * rug
    assert result.network.autoencoder(source).limit(source) == pytest.approx(result.trace[-1, 1], rel=2e-3)


def test_the_linear_closure_ends_at_the_best_projector():
    result = train(short(method="closure", activation="identity", steps=800, learning_rate=0.01))
    best = SOURCE.variance * (1 - 0.25)
    assert best * (1 - 1e-4) < result.trace[-1, 1] < 1.01 * best
    assert abs(result.loss - best) < max(0.01 * best, 3 * result.stderr)


@pytest.mark.parametrize(
    "source", [SOURCE, pr.SparseExponential(0.1, scale=0.5), pr.SparseConstant(0.2)], ids=lambda s: s.name
)
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_the_closure_is_the_law_of_the_same_weights(source, activation):
    run = run_of(short(source=source, method="closure", activation=activation))
    loss = float(run.objective.gradient(run.weights, run.gradients)[0])
    network = Network(*(run.weights[name][0] for name in ("W_in", "W_out", "bias")), (), activation)
    assert loss == pytest.approx(network.autoencoder(source).limit(source), rel=1e-6)


def assert_gradient(run, entries=12):
    """Compare with finite differences along single weights and along a random direction."""
    state = run.objective.state()

    def losses():
        run.objective.restore(state)
        return run.objective.gradient(run.weights, run.gradients).sum()

    losses()
    gradient = run.gradient.clone()
    generator = torch.Generator().manual_seed(2)
    for k in range(entries):
        if k:
            direction = torch.zeros_like(gradient)
            direction[torch.randint(len(gradient), (1,), generator=generator)] = 1.0
        else:
            direction = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
        start, step = run.parameters.clone(), 1e-6
        run.parameters.add_(direction, alpha=step)
        above = losses()
        run.parameters.copy_(start).sub_(direction, alpha=step)
        below = losses()
        run.parameters.copy_(start)
        assert float((above - below) / (2 * step)) == pytest.approx(
            float(gradient @ direction), rel=1e-4, abs=1e-9
        )


@pytest.mark.parametrize("rest", [{}, {"tied": True}, {"bias": False}, {"importance": 0.7}], ids=str)
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_gradients_of_the_closure(rest, activation):
    assert_gradient(run_of(*(short(method="closure", activation=activation, seed=k, **rest) for k in range(2))))


@pytest.mark.parametrize(
    "rest",
    [{"activation": name} for name in ACTIVATIONS]
    + [
        {"tied": True},
        {"bias": False},
        {"importance": 0.7},
        {"hidden": 2, "activation": "gelu"},
        {"hidden": 2, "residual": True, "activation": "tanh"},
        {"hidden": 1, "residual": True, "tied": True, "importance": 1.0},
    ],
    ids=str,
)
def test_gradients_on_samples(rest):
    assert_gradient(run_of(short(**rest), short(**{**rest, "seed": 1, "source": pr.SparseGaussian(0.2)})))


def test_adam_is_that_of_pytorch():
    run = run_of(short(schedule="constant", epsilon=1e-5))
    parameter = torch.nn.Parameter(run.parameters.clone())
    optimiser = torch.optim.Adam([parameter], 5e-3, eps=1e-5)
    for _ in range(20):
        run.advance()
        parameter.grad = run.gradient.clone()
        optimiser.step()
    torch.testing.assert_close(run.parameters, parameter.data, rtol=1e-10, atol=1e-12)


def test_rates():
    cosine, constant = short(steps=100), short(steps=100, schedule="constant")
    assert cosine.rate(1) == pytest.approx(5e-3, rel=1e-3)
    assert cosine.rate(50) + cosine.rate(51) == pytest.approx(5e-3)
    assert cosine.rate(100) < 1e-6
    assert constant.rate(1) == constant.rate(100) == 5e-3


def test_a_batch_is_as_good_as_single_ones():
    trainings = [
        Training.of_ratio(48, 0.25, pr.SparseUniform(p), seed=k, batch=128, steps=600, learning_rate=rate)
        for k, (p, rate) in enumerate([(0.045, 5e-3), (0.045, 5e-3), (0.1, 5e-3), (0.1, 1e-4)])
    ]
    many = train_many(trainings)
    alone = [train(training) for training in trainings]
    for one, other in zip(many, alone, strict=True):
        assert one.training == other.training
        assert one.loss == pytest.approx(other.loss, rel=0.08)
    # Seeds, sources and rates are each network's own.
    assert not same(many[0].network, many[1].network)
    assert many[2].loss > 1.5 * many[1].loss
    assert many[3].loss > 1.5 * many[2].loss


def test_one_in_a_batch_of_the_closure_is_the_same_alone():
    # Without samples there is no stream that they share.
    trainings = [
        short(method="closure", seed=k, source=source, learning_rate=rate, importance=a)
        for k, (source, rate, a) in enumerate([(SOURCE, 1e-2, 0.0), (pr.SparseConstant(0.1), 3e-3, 1.0)])
    ]
    for training, one in zip(trainings, train_many(trainings, dtype=torch.float64), strict=True):
        alone = train(training, dtype=torch.float64)
        torch.testing.assert_close(one.network.W_in, alone.network.W_in, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(one.trace, alone.trace, rtol=1e-6)


def test_important_features_are_kept_better():
    result = train(short(importance=1.5, steps=800))
    x = SOURCE.sample(20000, 32, seed=3)
    losses = (result.network(x) - x).square().mean(0).numpy()
    assert losses[:4].mean() < 0.3 * losses[-8:].mean()
    weighted = np.arange(1, 33) ** -1.5 * losses
    assert result.loss == pytest.approx(weighted.mean(), abs=4 * result.stderr)


@pytest.mark.parametrize("rest", [{"tied": True}, {"bias": False}, {"tied": True, "bias": False}], ids=str)
def test_what_is_tied_stays_tied_and_no_bias_stays_none(rest):
    result = train(short(**rest, steps=300))
    network = result.network
    assert torch.equal(network.W_out, network.W_in.T) == rest.get("tied", False)
    assert bool(network.bias.any()) == rest.get("bias", True)
    assert result.trace[-1, 1] < 0.8 * result.trace[0, 1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("hidden", "residual"), [(0, False), (1, False), (2, True)])
def test_every_network_learns(activation, hidden, residual):
    result = train(short(activation=activation, hidden=hidden, residual=residual, steps=500, learning_rate=2e-3))
    # Better than the mean of the data.
    assert result.loss < 0.95 * SOURCE.variance
    network = result.network
    assert len(network.hidden) == hidden
    x = SOURCE.sample(5, 32, seed=4, dtype=torch.float64)
    act = {**vars(torch.nn.functional), "identity": lambda h: h}[activation]
    h = x @ network.W_in.double().T @ network.W_out.double().T
    for weight, bias in network.hidden:
        h = h * residual + act(h @ weight.double().T + bias.double())
    torch.testing.assert_close(network(x), act(h + network.bias.double()))


def test_hidden_layers_help():
    losses = [train(short(hidden=k, steps=1500, learning_rate=2e-3, residual=k > 0)).loss for k in (0, 1)]
    assert losses[1] < 0.95 * losses[0]


def test_a_seed_determines_everything():
    a, b, c = (train(short(seed=seed)) for seed in (5, 5, 6))
    assert same(a.network, b.network)
    assert (a.loss, a.stderr) == (b.loss, b.stderr)
    assert np.array_equal(a.trace, b.trace)
    assert not same(a.network, c.network)


def test_integers_of_numpy_are_integers():
    training = short(seed=np.int64(3), n_sparse=np.int32(32), importance=np.float64(0.5))
    assert json.dumps(training.recipe()) == json.dumps(short(seed=3, importance=0.5).recipe())


def test_the_paper():
    training = Training.paper(1024, 256, SOURCE)
    assert training.learning_rate == pytest.approx(3e-3 / 32)
    assert (training.steps, training.batch, training.epsilon) == (45000, 1024, 1e-7)
    assert training.rate(1) == training.rate(45000)


INTERRUPTED = """
import sys
import persianrug as pr
from persianrug.networks import Training, train_many
trainings = [
    Training(32, 8, pr.Empirical(0.1, [0.5, 1.0]), seed=k, steps=4000, batch=32, learning_rate=1e-3 * k)
    for k in (1, 2)
]
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    path = tmp_path / "run.safetensors"
    script = INTERRUPTED + "train_many(trainings, checkpoint=sys.argv[1], checkpoint_every=37)"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], env=os.environ)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with safetensors.safe_open(path, framework="pt") as file:
        step = json.loads(file.metadata()["config"])["step"]
    assert 0 < step < 4000
    assert step % 37 == 0
    scope = {}
    exec(INTERRUPTED, scope)
    seen = []
    resumed = train_many(scope["trainings"], checkpoint=path, progress=lambda at, steps, loss: seen.append(at))
    whole = train_many(scope["trainings"])
    assert min(seen) > step
    for one, other in zip(resumed, whole, strict=True):
        assert same(one.network, other.network)
        assert one.loss == other.loss
        assert np.array_equal(one.trace, other.trace)
    # What has ended is not trained again.
    again = train_many(scope["trainings"], checkpoint=path)
    assert all(same(one.network, other.network) for one, other in zip(again, whole, strict=True))


def interrupted(training, path, at):
    """Leave a checkpoint of a step before the end."""
    run = Descent([training], CPU, torch.float32)
    while run.step < at:
        run.advance()
        if run.step % run.stride == 0:
            run.note()
    run.save(path)


@pytest.mark.parametrize(
    "rest", [{"method": "closure"}, {"hidden": 1}, {"tied": True, "importance": 1.0}], ids=str
)
def test_every_kind_goes_on_to_the_same_bits(rest, tmp_path):
    # 900 steps make points every 2, and the checkpoint lies between two of them.
    training, path = short(**rest, steps=900), tmp_path / "run.safetensors"
    interrupted(training, path, 301)
    resumed, whole = train(training, checkpoint=path), train(training)
    assert same(resumed.network, whole.network)
    assert np.array_equal(resumed.trace, whole.trace)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(short(), checkpoint=path)
    before = path.read_bytes()
    for rest, found in (
        ({"steps": 61}, r"has steps 60; allowed with this training: steps 61"),
        ({"source": pr.SparseUniform(0.05), "seed": 2}, r"source .*0\.045.*seed 0; .*0\.05.*seed 2"),
    ):
        with pytest.raises(ValueError, match=found):
            train(short(**rest), checkpoint=path)
    with pytest.raises(ValueError, match=r"has dtype torch.float32; allowed .* torch.float64"):
        train(short(), checkpoint=path, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"has number of trainings 1; allowed .*number of trainings 2"):
        train_many([short(), short(seed=1)], checkpoint=path)
    assert path.read_bytes() == before


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(short(), checkpoint=path)
    whole = path.read_bytes()
    for content in (
        b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b"60", b"61"), b"x" * 99
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint file .* (cannot be read|is damaged)"):
            train(short(), checkpoint=path)
    path.write_bytes(whole)
    config, tensors = read_tensors(path, "checkpoint", "persianrug.checkpoint", 1)
    del tensors["first"]
    write_tensors(path, "persianrug.checkpoint", 1, config, tensors)
    with pytest.raises(ValueError, match="holds no state of this version: 'first'"):
        train(short(), checkpoint=path)
    train(short()).network.save(path)
    with pytest.raises(ValueError, match=r"has format persianrug.network, version 1; allowed: .*checkpoint"):
        train(short(), checkpoint=path)


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    training = short(learning_rate=1e30, steps=1000)
    with pytest.raises(ValueError, match=r"loss is (nan|inf) at step \d+; allowed: finite, .*there is no checkp"):
        train(training, checkpoint=path, checkpoint_every=10)
    assert not path.exists()
    # The same from a state that was good when it was saved.
    run = Descent([short(steps=30000)], CPU, torch.float32)
    run.advance()
    run.save(path)
    good = path.read_bytes()
    run.parameters[3] = float("nan")
    for act in (run.note, lambda: run.save(path)):
        with pytest.raises(ValueError, match=r"infinite or nan at step 1; .*last checkpoint is of step 1"):
            act()
    assert path.read_bytes() == good


def test_it_stops_on_a_plateau():
    flat = short(method="closure", steps=20000, schedule="constant", learning_rate=2e-3, patience=200)
    result = train(flat)
    assert 400 <= result.steps < 10000
    assert result.trace[-1, 0] == result.steps
    longer = train(short(method="closure", steps=result.steps * 2, schedule="constant", learning_rate=2e-3))
    assert longer.steps == result.steps * 2
    assert longer.trace[-1, 1] > 0.98 * result.trace[-1, 1]


def test_progress():
    seen = []
    train(short(steps=3000), progress=lambda *args: seen.append(args))
    steps = [step for step, _, _ in seen]
    assert len(seen) > 2
    assert steps == sorted(steps)
    assert steps[-1] == 3000
    assert {total for _, total, _ in seen} == {3000}
    assert all(0 < loss < 0.05 for _, _, loss in seen)


def test_the_same_function_as_an_autoencoder():
    for rest in ({}, {"activation": "identity"}, {"tied": True}):
        network = train(short(**rest, steps=400)).network
        model = network.autoencoder(SOURCE)
        x = SOURCE.sample(100, 32, seed=9)
        torch.testing.assert_close(model(x), network(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.encode(x), network.encode(x))
        loss, stderr = network.measure(SOURCE, seed=2)
        result = model.measure(SOURCE, seed=3)
        assert abs(loss - result.loss) < 4 * np.hypot(stderr, result.stderr)
        # The law is exact for a linear network; a trained one with a ReLU is better than Gaussian interference.
        law = model.law(SOURCE)
        assert loss < 0.9 * law if network.activation == "relu" else abs(loss - law) < 4 * stderr


def test_what_is_no_autoencoder():
    with pytest.raises(ValueError, match="network has 1 hidden layers; allowed in an autoencoder: none"):
        train(short(hidden=1)).network.autoencoder(SOURCE)
    with pytest.raises(ValueError, match="activation is 'gelu'; allowed: relu, identity"):
        train(short(activation="gelu")).network.autoencoder(SOURCE)
    flipped = Network(torch.eye(3), torch.diag(torch.tensor([1.0, -2.0, 1.0])), torch.zeros(3))
    with pytest.raises(ValueError, match="has -2 on its diagonal at feature 1; allowed in an autoenc"):
        flipped.autoencoder(SOURCE)


@pytest.mark.parametrize(
    "rest", [{}, {"hidden": 2, "residual": True, "activation": "tanh"}, {"tied": True}], ids=str
)
def test_networks_are_stored_whole(rest, tmp_path):
    path = tmp_path / "network.safetensors"
    network = train(short(**rest)).network
    network.save(path)
    loaded = Network.load(path)
    assert same(loaded, network)
    assert repr(loaded) == repr(network)
    assert loaded.recipe == network.recipe
    assert loaded.recipe["source"] == {"name": "uniform", "p": 0.045, "scale": 1.0}
    x = SOURCE.sample(7, 32, seed=1)
    assert torch.equal(loaded(x), network(x))
    assert isinstance(loaded(x.numpy()), np.ndarray)
    names = {"W_in", "W_out", "bias", *(f"hidden.{k}.{part}" for k in range(2) for part in ("weight", "bias"))}
    assert set(safetensors.torch.load_file(path)) == (names if rest.get("hidden") else {"W_in", "W_out", "bias"})
    whole = path.read_bytes()
    for content in (
        whole[:50],
        whole[:-9],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        whole.replace(b"learning", b"Learning"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"network file .* (cannot be read|is damaged)"):
            Network.load(path)
    with pytest.raises(ValueError, match="is missing"):
        Network.load(tmp_path / "none")


def test_whole_files_that_hold_no_network_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    weights = {"W_in": torch.eye(3), "W_out": torch.eye(3), "bias": torch.zeros(3)}
    config = {"activation": "relu", "residual": False, "recipe": {}}
    for other, tensors in (
        (config, {**weights, "bias": torch.zeros(4)}),
        (config, {**weights, "bias": torch.full((3,), torch.nan)}),
        (config, {"W_in": torch.eye(3)}),
        ({**config, "activation": "sine"}, weights),
        ({**config, "more": 1}, weights),
    ):
        write_tensors(path, "persianrug.network", 1, other, tensors)
        with pytest.raises(ValueError, match="holds no network of this version"):
            Network.load(path)
    write_tensors(path, "persianrug.network", 2, config, weights)
    with pytest.raises(ValueError, match=r"version 2; allowed: format persianrug\.network, version 1"):
        Network.load(path)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({"n_dense": 33}, "n_dense is 33; allowed: an integer from 1 to 32"),
        ({"n_sparse": 1}, "n_sparse is 1;"),
        ({"source": 0.1}, "source is 0.1; allowed: a Source"),
        ({"source": pr.SparseUniform([0.1] * 32)}, "features that differ"),
        ({"seed": -1}, "seed is -1;"),
        ({"method": "magic"}, "method is 'magic'; allowed: sampled, closure"),
        ({"activation": "sine"}, "activation is 'sine'; allowed: identity, relu"),
        ({"tied": 1}, "tied is 1; allowed: True, False"),
        ({"hidden": -1}, "hidden is -1;"),
        ({"residual": True}, "residual is True; allowed without hidden layers: False"),
        ({"importance": -0.1}, "importance is -0.1;"),
        ({"steps": 0}, "steps is 0;"),
        ({"batch": 0}, "batch is 0;"),
        ({"learning_rate": 0}, "learning_rate is 0;"),
        ({"schedule": "linear"}, "schedule is 'linear'; allowed: cosine, constant"),
        ({"epsilon": float("nan")}, "epsilon is nan;"),
        ({"patience": 5}, "patience is 5; allowed with schedule cosine: 0"),
        ({"method": "closure", "hidden": 1}, "hidden is 1; allowed with method closure: 0"),
        ({"method": "closure", "activation": "gelu"}, "activation is 'gelu'; allowed with method closure: relu"),
        ({"method": "closure", "source": pr.SparseGaussian(0.1)}, "source gaussian is signed;"),
    ],
)
def test_bad_trainings_are_refused(rest, message):
    with pytest.raises(ValueError, match=message):
        short(**rest)


def test_bad_calls_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch is 64 and 65; allowed: one for all of a batch"):
        train_many([short(), short(batch=65)])
    with pytest.raises(ValueError, match="trainings is empty; allowed: at least one"):
        train_many([])
    with pytest.raises(ValueError, match=r"dtype is torch\.float16; allowed: torch"):
        train(short(), dtype=torch.float16)
    with pytest.raises(ValueError, match="checkpoint_every is 0;"):
        train(short(), checkpoint_every=0)
    with pytest.raises(ValueError, match=r"output folder .* is missing"):
        train(short(), checkpoint=tmp_path / "none" / "run")
    with pytest.raises(ValueError, match=r"ratio is 0.001, which makes n_dense 0"):
        Training.of_ratio(32, 0.001, SOURCE)
    with pytest.raises(ValueError, match="samples is 1;"):
        train(short()).network.measure(SOURCE, samples=1)
