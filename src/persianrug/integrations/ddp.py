"""A communication hook for PyTorch's DistributedDataParallel that sends linear sketches of gradients.

    model = DistributedDataParallel(net)
    model.register_comm_hook(SketchState(process_group=None, ratio=0.25, seed=0), sketch_hook)

Every worker adds what it has not sent yet to its gradient, cuts the sum into blocks, keeps the k largest entries
of each and encodes them with the same rug as the others. Codes are linear: an all-reduce adds them up to the code
of the sum of what was kept, whose at most (workers) k active entries OAMP recovers, the same on every worker. So k
is set by the threshold of its state evolution, and no worker sends an index.
"""

# Annotations are objects here, as DDP looks at those of a hook.

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor
from torch.distributed import GradBucket  # type: ignore[attr-defined]

from persianrug._support import checks
from persianrug.decoders import OAMP, recovery_threshold
from persianrug.encoders import Rug
from persianrug.sources import SparseGaussian

# Blocks of a bucket are of the size, among these, that pads it least.
_BLOCKS = (8192, 4096, 2048)

# Buckets of fewer numbers are all-reduced as they are.
_FEWEST = 2048

# Of the active entries that OAMP recovers if they are normal and blocks endless, this share is sent. Gradients are
# not normal: at ratio 0.125, 99.99% of the blocks of digits' gradients are recovered; at a share of 0.6 it is 90%,
# at 0.7 35%.
_MARGIN = 0.5

# The decoder takes entries to be so much more frequent than they are where no two workers send the same one.
# Without, 99.95% of those blocks are recovered, and fewer where entries are of one size or a few are far larger.
_SURPLUS = 1.3

# Of the code's energy; a block of which more is left unexplained is not recovered.
_EXPLAINED = 1e-3

_CODES = (torch.bfloat16, torch.float32)


class SketchState:
    """What `sketch_hook` keeps: its parameters, and what of the gradients has not been sent yet.

    Workers decode for themselves, and must agree to the bit: give all of them the same arguments, kind of device
    and number of threads. Every worker has a memory of its own: to go on where a training was stopped, save the
    state of each. It pickles without its process group, and has the default one when it is loaded.

    The memory is in the units of the gradients. Where a worker's gradient is not finite, all get NaN for the whole
    bucket, and forget this gradient but not the memory; a GradScaler then skips the step on all of them.

    It is made for SGD. Entries come more rarely and larger than they are, which Adam takes for variance: with
    AdamW, the training of `benchmarks/ddp.py` ends at a loss that is 46% higher, and 8% higher on held-out data.

    Parameters
    ----------
    process_group : torch.distributed.ProcessGroup or None
        The workers; None is the default group.
    ratio : float in (0, 1), or in (0, 0.5) with codes of bfloat16
        Bytes that are all-reduced over those of all gradients in float32. Buckets of fewer than 2048 numbers are
        sent as they are.
    seed : int >= 0
        Of the rugs.
    start_iter : int >= 0
        So many steps are sent as they are, first.
    code_dtype : torch.bfloat16 or torch.float32
        Numbers of the code. Those of bfloat16 err by 0.2%, and there are twice as many.

    Attributes
    ----------
    iter : int
        Steps so far.
    bytes_sent : int
        Bytes that this worker has given to all-reduces.
    bytes_dense : int
        Bytes that it would have given to them without the hook.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        ratio: float = 0.25,
        seed: int = 0,
        *,
        start_iter: int = 0,
        code_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        if process_group is not None and not isinstance(process_group, dist.ProcessGroup):
            raise ValueError(
                f"process_group is {checks.shown(process_group)}; allowed: a torch.distributed.ProcessGroup, None"
            )
        if not isinstance(code_dtype, torch.dtype) or code_dtype not in _CODES:
            raise ValueError(f"code_dtype is {checks.shown(code_dtype)}; allowed: {', '.join(map(str, _CODES))}")
        most = code_dtype.itemsize / 4
        allowed = f"a number > 0 and < {most:g} with codes of {code_dtype}"
        if not 0 < checks.finite("ratio", ratio, allowed) < most:
            raise ValueError(f"ratio is {ratio}; allowed: {allowed}")
        self.process_group = process_group
        self.ratio = float(ratio)
        self.seed = checks.seed(seed)
        self.start_iter = checks.integer("start_iter", start_iter, 0)
        self.code_dtype = code_dtype
        self.iter = 0
        self.bytes_sent = 0
        self.bytes_dense = 0
        # Flat, and by parameter, not by bucket, as DDP sorts parameters into new buckets after the first step.
        self._memory: dict[int, Tensor] = {}
        self._numbers: dict[Tensor, int] = {}
        self._recovered: dict[int, tuple[int, int]] = {}

    @property
    def recovered(self) -> float:
        """Share of the blocks of the last step that were recovered; 1 where none was sketched."""
        found, blocks = (sum(part) for part in zip((0, 0), *self._recovered.values(), strict=True))
        return found / blocks if blocks else 1.0

    def __repr__(self) -> str:
        return (
            f"SketchState(ratio={self.ratio}, seed={self.seed}, start_iter={self.start_iter}, "
            f"code_dtype={self.code_dtype})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Parts of one bucket are views of one tensor, all of which each would save.
        memory = {number: part.clone() for number, part in self._memory.items()}
        return {**self.__dict__, "process_group": None, "_memory": memory, "_numbers": {}, "_recovered": {}}

    def _parts(self, bucket: GradBucket) -> list[tuple[int, int]]:
        """Number and size of the bucket's parameters, numbered in the order of the first step.

        That is the same in every process that has the same model and the same sizes of buckets.
        """
        parameters = bucket.parameters()
        return [(self._numbers.setdefault(one, len(self._numbers)), one.numel()) for one in parameters]

    def _recall(self, parts: list[tuple[int, int]], like: Tensor) -> Tensor | None:
        """What has not been sent of the parameters, one after another."""
        if not self._memory:
            return None
        for number, size in parts:
            if number in self._memory and self._memory[number].numel() != size:
                raise ValueError(
                    f"parameter {number} has {size} numbers; allowed with the state's memory: "
                    f"{self._memory[number].numel()}"
                )
        kept = [self._memory.get(number, like.new_zeros(size)) for number, size in parts]
        return torch.cat(kept).to(like)

    def _remember(self, parts: list[tuple[int, int]], flat: Tensor) -> None:
        sizes = [size for _, size in parts]
        self._memory.update(zip([number for number, _ in parts], flat.split(sizes), strict=True))


@dataclass(frozen=True)
class BucketSketch:
    """How the numbers of a bucket are sent: cut into blocks, of which each keeps `kept` entries and has a code.

    Blocks take turns at the numbers, so that every block has its part of every layer and all look alike.
    """

    size: int
    rug: Rug
    kept: int
    decoder: OAMP

    def blocks(self, flat: Float[Tensor, " size"]) -> Float[Tensor, "blocks n_sparse"]:
        """The numbers in blocks, after them zeros."""
        missing = -self.size % self.rug.n_sparse
        return torch.nn.functional.pad(flat, (0, missing)).view(self.rug.n_sparse, -1).T.contiguous()

    def flat(self, blocks: Float[Tensor, "blocks n_sparse"]) -> Float[Tensor, " size"]:
        """The numbers that `blocks` cut."""
        return blocks.T.reshape(-1)[: self.size]

    def largest(self, blocks: Float[Tensor, "blocks n_sparse"]) -> Float[Tensor, "blocks n_sparse"]:
        """The largest entries of every block, and zeros."""
        places = blocks.abs().topk(self.kept, sorted=False).indices
        return torch.zeros_like(blocks).scatter_(1, places, blocks.gather(1, places))

    def decode(self, z: Float[Tensor, "blocks n_dense"]) -> tuple[Float[Tensor, "blocks n_sparse"], int]:
        """The sum of what all workers kept from the sum of their codes, and how many blocks are recovered."""
        # First by the largest, as squares may leave the range of numbers.
        scale = z.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        z = z / scale
        power = z.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(z.dtype).tiny)
        z = z / power
        x = self.decoder.decode(z, self.rug)
        left = (z - self.rug.encode(x)).square().mean(-1)
        return x * power * scale, int((left < _EXPLAINED).sum())


@functools.lru_cache(maxsize=64)
def plan(size: int, ratio: float, code_dtype: torch.dtype, workers: int, seed: int) -> BucketSketch:
    """The sketch of a bucket of so many numbers, for a ratio of the bytes that these take in float32.

    Raises
    ------
    ValueError
        If so little is sent that no entry of a block is left to a worker.
    """
    n_sparse = min(_BLOCKS, key=lambda block: -size % block)
    blocks = -(-size // n_sparse)
    n_dense = int(4 * ratio * size / (code_dtype.itemsize * blocks))
    sparsity = _MARGIN * _recoverable(n_dense / n_sparse) if n_dense else 0.0
    kept = int(sparsity * n_sparse / workers)
    if not kept:
        raise ValueError(
            f"ratio is {ratio}; allowed with {workers} workers: more, or nothing of a gradient is sent"
        )
    p = _SURPLUS * sparsity
    # Rounding of the codes leaves about so much; to go on until nothing gets better takes nearly twice as long.
    tolerance = torch.finfo(code_dtype).eps ** 2 / 4
    # Of codes whose entries have the mean square 1, as the rug has orthonormal rows.
    decoder = OAMP(SparseGaussian(p, p**-0.5), iterations=30, tolerance=tolerance)
    # The seed of a state that was pickled may be of any size.
    return BucketSketch(size, Rug.stored(n_sparse, n_dense, seed), kept, decoder)


@functools.lru_cache(maxsize=64)
def _recoverable(ratio: float) -> float:
    """The p up to which OAMP recovers normal features from a code of this ratio."""
    low, high = math.log(1e-6 * ratio), math.log(ratio)
    return math.exp(brentq(lambda log_p: recovery_threshold(SparseGaussian(math.exp(log_p))) - ratio, low, high))


def sketch_hook(state: SketchState, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Average the gradients of a bucket over the workers, by sums of their sketches.

    Raises
    ------
    ValueError
        If gradients are not dense float32 or float64 tensors, or not those that the state remembers, or of so many
        workers that nothing can be sent at its ratio.
    """
    buffer = bucket.buffer()
    if buffer.layout != torch.strided or buffer.dtype not in (torch.float32, torch.float64):
        allowed = "torch.strided of torch.float32, torch.float64"
        raise ValueError(f"gradients are {buffer.layout} of {buffer.dtype}; allowed: {allowed}")
    group = state.process_group if state.process_group is not None else dist.group.WORLD
    workers, parts = dist.get_world_size(group), state._parts(bucket)
    sketched = state.iter >= state.start_iter and buffer.numel() >= _FEWEST
    state.iter += bucket.is_last()
    if bucket.index() == 0:
        state._recovered = {}
    state.bytes_dense += buffer.nbytes
    if not sketched:
        state.bytes_sent += buffer.nbytes
        return _sum(buffer, group).then(lambda done: done.value()[0].div_(workers))

    sketch = plan(buffer.numel(), state.ratio, state.code_dtype, workers, state.seed)
    before = state._recall(parts, buffer)
    blocks = sketch.blocks(buffer if before is None else buffer + before)
    kept = sketch.largest(blocks)
    # What is not finite is to arrive as that, everywhere.
    code = sketch.rug.encode(kept, check=False).to(state.code_dtype)
    # What was sent is forgotten though it is decoded with an error: where blocks are recovered that is 1e-6 of its
    # energy, and where they are not, memories that take the error back grow until no block is recovered any more.
    state._remember(parts, sketch.flat(blocks - kept))
    state.bytes_sent += code.nbytes

    def decode(done: torch.futures.Future[list[Tensor]]) -> Tensor:
        z = done.value()[0].to(buffer.dtype)
        # Infinity and NaN are among the largest, for topk too, and get into every entry of a code.
        if not bool(z.isfinite().all()):
            state._remember(parts, torch.zeros_like(buffer) if before is None else before)
            return buffer.fill_(math.nan)
        x, recovered = sketch.decode(z)
        state._recovered[bucket.index()] = recovered, len(z)
        return buffer.copy_(sketch.flat(x).div_(workers))

    return _sum(code, group).then(decode)


def _sum(tensor: Tensor, group: dist.ProcessGroup | None) -> torch.futures.Future[list[Tensor]]:
    future: torch.futures.Future[list[Tensor]] = dist.all_reduce(tensor, group=group, async_op=True).get_future()
    return future
