"""Files of autoencoders: stored to the bit, and refused where they are damaged or forged."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

import persianrug as pr
from persianrug._support.tensors import digest
from tests.helpers import differing, model_of


class TestFiles:
    @pytest.fixture
    def models(self):
        source = pr.SparseUniform(0.1)
        weights = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
        encoders = [
            # Earlier versions took seeds of every size.
            pr.Rug.stored(10, 4, seed=2**70),
            pr.Gaussian.stored(10, 4, seed=2**70),
            pr.Rug(16, 4, signs=False),
            pr.Dense(weights),
        ]
        return [pr.Autoencoder(e, kind()).tune(source) for e in encoders for kind in (pr.Linear, pr.ReLU)]

    def test_round_trip(self, models, tmp_path):
        for model in models:
            model.save(tmp_path / "m.safetensors")
            again = pr.load(tmp_path / "m.safetensors")
            assert again.decoder == model.decoder
            assert again.mean == model.mean
            x = torch.rand(3, model.encoder.n_sparse, generator=torch.Generator().manual_seed(0))
            # To the bit but for the layout of the matrices, which the order of additions follows.
            for name, tensor in model.encoder.tensors().items():
                assert torch.equal(again.encoder.tensors()[name], tensor)
            assert torch.allclose(again(x), model(x), rtol=1e-5, atol=1e-6)

    def test_a_rug_is_a_small_file(self, tmp_path):
        model_of(pr.SparseUniform(0.01), 2**20, 0.25).save(tmp_path / "m.safetensors")
        assert (tmp_path / "m.safetensors").stat().st_size < 1000

    def test_every_damaged_byte_is_noticed_or_harmless(self, models, tmp_path):
        path = tmp_path / "m.safetensors"
        for model in (models[0], models[-1]):
            model.save(path)
            content = path.read_bytes()
            rng, refusals = np.random.default_rng(0), []
            for place in rng.choice(len(content), 150, replace=False):
                damaged = bytearray(content)
                damaged[place] ^= 1 << int(rng.integers(8))
                path.write_bytes(damaged)
                try:
                    again = pr.load(path)
                except ValueError as error:
                    refusals.append(str(error))
                else:
                    # Spaces that pad the header, say.
                    assert again.decoder == model.decoder
                    assert torch.equal(again.encoder.W_in(), model.encoder.W_in())
            assert len(refusals) > 100
            assert all("allowed" in refusal for refusal in refusals)

    def test_truncated_files_are_refused(self, models, tmp_path):
        path = tmp_path / "m.safetensors"
        models[-1].save(path)
        content = path.read_bytes()
        for length in (0, 1, 7, 8, 50, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match="cannot be read"):
                pr.load(path)

    def test_other_versions_and_formats_are_refused(self, tmp_path):
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file({"a": torch.zeros(2)}, path)
        with pytest.raises(ValueError, match=r"has format None, version None; allowed: format persianrug"):
            pr.load(path)
        metadata = {"format": "persianrug.autoencoder", "version": "3"}
        safetensors.torch.save_file({"a": torch.zeros(2)}, path, metadata)
        with pytest.raises(ValueError, match=r"version 3; allowed: .* version 2"):
            pr.load(path)

    @pytest.mark.parametrize(
        "recipe",
        ["", "[]", "{}", '{"encoder": {"name": "rug", "n_sparse": 1e99, "n_dense": 1}, "decoder": {}, "mean": 0}',
         '{"encoder": {"name": "rug", "n_sparse": 8, "n_dense": 4}, "decoder": {"name": "relu"}, "mean": "x"}',
         '{"encoder": {"name": "rug", "n_sparse": 8, "n_dense": 4}, "decoder": {"gain": 1}, "mean": 0}',
         '{"encoder": {"name": "rug", "n_sparse": 8, "n_dense": 4}, "decoder": {"name": "relu"}, "mean": 1e999}',
         '{"encoder": {"name": "rug", "n_sparse": 8, "n_dense": 4, "signs": "no"}, "decoder": {"name": "relu"}}',
         '{"encoder": [], "decoder": {}, "mean": 0}', "[" * 100000],
    )  # fmt: skip
    def test_forged_recipes_are_refused(self, recipe, tmp_path):
        metadata = {
            "format": "persianrug.autoencoder",
            "version": "2",
            "recipe": recipe,
            "sha256": digest(recipe, {}),
        }
        safetensors.torch.save_file({}, tmp_path / "m.safetensors", metadata)
        with pytest.raises(ValueError, match="holds no recipe of this version"):
            pr.load(tmp_path / "m.safetensors")

    def test_a_missing_file_and_a_pickle_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="is missing"):
            pr.load(tmp_path / "none.safetensors")
        torch.save({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
        with pytest.raises(ValueError, match="cannot be read"):
            pr.load(tmp_path / "m.safetensors")

    def test_the_recipe_can_be_read_without_us(self, models, tmp_path):
        models[1].save(tmp_path / "m.safetensors")
        with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
            recipe = json.loads(file.metadata()["recipe"])
        assert recipe["encoder"] == {"name": "rug", "n_sparse": 10, "n_dense": 4, "seed": 2**70, "signs": True}
        assert set(recipe["decoder"]) == {"name", "gain", "bias"}


CHANNEL = pr.Channel(0.02, 6, 0.1)


ALIKE = {
    "truncated": pr.SparseTruncatedNormal(0.1, 0.5, 1.0),
    "empirical": pr.Empirical(0.2, [0.5, 1.0, 3.0], [1.0, 1.0, 2.0]),
}
UNEQUAL = {
    "uniform array": differing(n=12, p=0.3),
    "constant array": differing(pr.SparseConstant, n=12, p=0.3),
    "truncated array": pr.SparseTruncatedNormal(0.1, np.geomspace(0.1, 2, 12), np.linspace(0, 1, 12)),
}
# TopK takes features that are alike.
CASES = [
    pytest.param(kind, source, id=f"{kind.name}-{name}")
    for kind in (pr.Bayes, pr.OAMP, pr.TopK, pr.ReLU, pr.Linear)
    for name, source in (ALIKE if kind is pr.TopK else ALIKE | UNEQUAL).items()
]


@pytest.mark.parametrize(("kind", "source"), CASES)
@pytest.mark.parametrize("channel", [pr.Channel(), CHANNEL], ids=["clear", "channel"])
def test_every_part_of_a_model_is_stored(kind, source, channel, tmp_path):
    model = pr.Autoencoder(pr.Rug(12, 8), kind(), channel=channel).tune(source)
    assert model.channel.scale != 1 or channel.clear
    model.save(tmp_path / "m.safetensors")
    again = pr.load(tmp_path / "m.safetensors")
    assert again.decoder == model.decoder
    assert hash(again.decoder) == hash(model.decoder)
    assert np.array_equal(again.mean, model.mean)
    assert np.shape(again.mean) == (() if source.n_sparse is None else (12,))
    assert again.channel == model.channel
    x = source.sample(4, 12, seed=0)
    z = model.transmit(model.encode(x), seed=1)
    assert torch.equal(again.transmit(again.encode(x), seed=1).nan_to_num(nan=9.0), z.nan_to_num(nan=9.0))
    assert torch.equal(again.decode(z), model.decode(z))
    assert again.limit(source) == model.limit(source)
    # What was not tuned is another.
    assert kind() != model.decoder


def test_fitted_sources_are_stored_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        source = pr.Empirical(0.2, rng.normal(size=9), rng.random(9))
        model = pr.Autoencoder(pr.Rug(16, 8), pr.Bayes()).tune(source)
        model.save(tmp_path / "m.safetensors")
        assert pr.load(tmp_path / "m.safetensors").decoder == model.decoder


def test_what_earlier_versions_took_still_loads(tmp_path):
    source = pr.SparseUniform(0.1)
    x = source.sample(3, 8, seed=0, dtype=torch.float64)
    wide = np.random.default_rng(0).normal(size=(12, 8))
    knotted = pr.KnottedRug.stored(
        [{"name": "pair", "count": 4}], 3, 2**70, True,
        **{"matrix.0": torch.tensor([[1.0, -1.0]]), "readout.0": torch.tensor([[1.0], [-1.0]])},
    )  # fmt: skip
    for encoder in (knotted, pr.Dense.stored(torch.from_numpy(wide), torch.from_numpy(wide.T))):
        model = pr.Autoencoder(encoder, pr.ReLU()).tune(source)
        model.save(tmp_path / "m.safetensors")
        again = pr.load(tmp_path / "m.safetensors")
        assert again == model
        assert torch.allclose(again(x), model(x))
    # What is typed is refused as before, and so are weights the wrong way round.
    with pytest.raises(ValueError, match=r"seed is 2\d+; allowed: an integer from 0 to"):
        pr.KnottedRug(knotted.knots, 3, 2**71)
    with pytest.raises(ValueError, match="the wrong way round"):
        pr.Dense(wide)
    with pytest.raises(ValueError, match="the wrong way round"):
        pr.networks.read_weights(tmp_path / "m.safetensors")


@pytest.mark.parametrize("seed", [-1, 0.5, "1", None, True, [1]])
def test_seeds_that_none_ever_were_are_refused(seed, tmp_path):
    model = pr.Autoencoder(pr.Rug(8, 4), pr.ReLU())
    model.encoder.seed = seed
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"seed is .*; allowed: an integer >= 0"):
        pr.load(tmp_path / "m.safetensors")
