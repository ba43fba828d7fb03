"""Which rows each optimiser step takes, as a pure function of the step.

Because nothing is remembered between steps, a run continues exactly where it stopped, and raising
the number of steps or changing the number of workers changes no earlier batch.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from nemo_reasoning.errors import ConfigError
from nemo_reasoning.models.flops import BatchCounts

PADDING_ROW = -1
_SHOWN_ROWS = 16
ROW_MULTIPLE = 16  # what FP8 kernels ask for
PACK_MULTIPLE = 64  # the same, and few lengths: on a CPU each one costs the compilation of its kernels


def total_steps(*, epochs: float, rows: int, global_batch_size: int) -> int:
    """Return the optimizer steps of so many passes over the rows, at least one."""
    return max(1, round(epochs * rows / global_batch_size))


class BatchPlan:
    """Deals rows to steps, micro-batches and data-parallel ranks.

    Rows are shuffled anew in every pass, or stay in order as a curriculum needs. Within a global batch
    rows of similar length share a micro-batch, the longest first, so that little is padded and a step
    that does not fit in memory fails at once.
    """

    def __init__(
        self,
        *,
        lengths: NDArray[np.int64],
        supervised: NDArray[np.int64],
        micro_batch_size: int,
        global_batch_size: int,
        data_parallel_size: int,
        pad_to: int,
        seed: int | None,
        repeat: bool,
    ) -> None:
        """Plan batches.

        Args:
            lengths: Input positions of each row, [rows].
            supervised: Supervised positions of each row, [rows].
            micro_batch_size: Rows of one forward pass on one replica.
            global_batch_size: Rows of one optimiser step over all replicas.
            data_parallel_size: Number of replicas.
            pad_to: A micro-batch is as long as its longest row, rounded up to a multiple of this.
            seed: Of the shuffling; None keeps the rows in order.
            repeat: Passes follow each other without a break; otherwise there is one, and padding rows fill
                its last step.

        Raises:
            ConfigError: The global batch cannot be dealt evenly.
        """
        if global_batch_size % (micro_batch_size * data_parallel_size):
            raise ConfigError(
                f"global_batch_size={global_batch_size} is not a multiple of micro_batch_size={micro_batch_size} "
                f"x {data_parallel_size} data-parallel replicas"
            )
        self.lengths, self.supervised = lengths, supervised
        self.micro_batch_size, self.global_batch_size = micro_batch_size, global_batch_size
        self.data_parallel_size, self.pad_to = data_parallel_size, pad_to
        self.seed, self.repeat = seed, repeat
        self._order = lru_cache(maxsize=2)(self._ordered)

    @property
    def micro_batches(self) -> int:
        """Most forward passes of one replica in one step."""
        return self.global_batch_size // (self.micro_batch_size * self.data_parallel_size)

    def micro_batches_of(self, step: int) -> int:
        """Return the forward passes of one replica in a step."""
        return self.micro_batches

    @property
    def steps_per_pass(self) -> int:
        """Steps that touch every row at least once."""
        return -(-len(self.lengths) // self.global_batch_size)

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        if self.seed is None:
            return np.arange(len(self.lengths))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step, [global_batch_size], in the order they are drawn."""
        numbers = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epochs, places = np.divmod(numbers, len(self.lengths))
        rows = np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        return rows if self.repeat else np.where(epochs == 0, rows, PADDING_ROW)

    def describe_rows(self, step: int) -> str:
        """Say to people which rows a training step takes, where they can look at them."""
        rows = self.rows(step).tolist()
        more = f" and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
        return f"rows {', '.join(map(str, rows[:_SHOWN_ROWS]))}{more} of data/training.jsonl, counted from 0"

    def deal(self, step: int) -> Sequence[Sequence[NDArray[np.int64]]]:
        """Return the rows of a step by micro-batch and replica."""
        rows = self.rows(step)
        lengths = np.where(rows == PADDING_ROW, 0, self.lengths[rows])
        by_length = rows[np.argsort(-lengths, kind="stable")]
        dealt = by_length.reshape(self.micro_batches, self.micro_batch_size, self.data_parallel_size)
        return list(dealt.transpose(0, 2, 1))

    def positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions a micro-batch of one replica occupies, padding included."""
        return self.padded_length(rows) * len(rows)

    def padded_length(self, rows: NDArray[np.int64]) -> int:
        """Return the positions each row of a micro-batch occupies."""
        longest = int(self.lengths[rows[rows != PADDING_ROW]].max(initial=1))
        return -(-longest // self.pad_to) * self.pad_to

    def loss_terms(self, step: int) -> int:
        """Return how many terms the mean loss of a step is over: its supervised positions."""
        return self.counts(step).supervised_tokens

    def counts(self, step: int) -> BatchCounts:
        """Return the sizes of a step over all replicas."""
        micro_batches = [rows for replicas in self.deal(step) for rows in replicas]
        rows = np.concatenate(micro_batches)
        rows = rows[rows != PADDING_ROW]
        return BatchCounts(
            samples=len(rows),
            tokens=sum(self.positions(rows) for rows in micro_batches),
            nonpad_tokens=int(self.lengths[rows].sum()),
            supervised_tokens=int(self.supervised[rows].sum()),
        )


class PackedPlan(BatchPlan):
    """Lays the rows of a micro-batch one behind the other, without padding between them.

    A step takes the same rows as without packing, so its loss and its gradients are the same. They go
    into as few micro-batches as `micro_batch_size` rows of `seq_length` positions would hold, of equal
    sizes as far as can be, so the number of micro-batches differs from step to step.
    """

    def __init__(self, *, seq_length: int, **plan: Any) -> None:
        """Plan batches.

        Args:
            seq_length: Most input positions of a row.
            **plan: As for `BatchPlan`; a micro-batch is padded at its end to a multiple of `pad_to`.
        """
        super().__init__(**plan)
        self.capacity = self.micro_batch_size * seq_length

    @property
    def micro_batches(self) -> int:
        """Most forward passes of one replica in one step: a row each."""
        return self.global_batch_size // self.data_parallel_size

    def micro_batches_of(self, step: int) -> int:
        """Return the forward passes of one replica in a step."""
        return len(self.deal(step))

    def deal(self, step: int) -> Sequence[Sequence[NDArray[np.int64]]]:
        """Return the rows of a step by micro-batch and replica; replicas get about equally many positions."""
        rows = self.rows(step)
        rows = rows[rows != PADDING_ROW]
        lengths, replicas = self.lengths[rows], self.data_parallel_size
        count = max(1, -(-int(lengths.sum()) // (self.capacity * replicas)))
        while True:
            bins = _balanced(lengths, count * replicas)
            if count >= self.micro_batches or max(lengths[places].sum() for places in bins) <= self.capacity:
                break
            count += 1
        bins.sort(key=lambda places: -lengths[places].sum())
        dealt = [rows[places] if len(places) else np.array([PADDING_ROW]) for places in bins]
        return [dealt[start : start + replicas] for start in range(0, len(dealt), replicas)]

    def positions(self, rows: NDArray[np.int64]) -> int:
        """Return the positions a micro-batch of one replica occupies, padding included."""
        held = int(self.lengths[rows[rows != PADDING_ROW]].sum())
        return -(-max(1, held) // self.pad_to) * self.pad_to


class PairPlan(PackedPlan):
    """Deals pairs of rows, 2 n and 2 n + 1 of a store; all its numbers are those of pairs."""

    def __init__(self, *, lengths: NDArray[np.int64], supervised: NDArray[np.int64], **plan: Any) -> None:
        """Plan batches; arguments are those of `PackedPlan`, sizes those of the single rows, [2 * pairs]."""
        sums = (sizes.reshape(-1, 2).sum(axis=1) for sizes in (lengths, supervised))
        super().__init__(**dict(zip(("lengths", "supervised"), sums, strict=True)), **plan)

    def loss_terms(self, step: int) -> int:
        """Return the pairs of a step."""
        return self.counts(step).samples


def _balanced(lengths: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Deal places to bins, the longest first and each to the bin with least in it (Graham 1969)."""
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for place in np.argsort(-lengths, kind="stable"):
        load, number = heappop(loads)
        bins[number].append(int(place))
        heappush(loads, (load + int(lengths[place]), number))
    return [np.array(places, dtype=np.int64) for places in bins]


class PlannedBatches(Sampler[list[int]]):
    """The micro-batches of one replica, from one step to another."""

    def __init__(self, plan: BatchPlan, *, rank: int, first_step: int, steps: int) -> None:
        """Iterate over steps `first_step` to `steps` - 1.

        The length counts all micro-batches from step 0 on, because Lightning compares it with a
        progress counter that survives a restart.
        """
        self.plan, self.rank, self.first_step, self.steps = plan, rank, first_step, steps

    def __len__(self) -> int:
        """Return the micro-batches; of a training, which ends by itself, the most that it can have.

        At the end of a validation a pipeline's last stage has to know, or it waits for what the first one never sends.
        """
        if self.plan.repeat:
            return self.steps * self.plan.micro_batches
        return sum(self.plan.micro_batches_of(step) for step in range(self.steps))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield row numbers, one list a micro-batch."""
        for step in range(self.first_step, self.steps):
            for replicas in self.plan.deal(step):
                yield replicas[self.rank].tolist()
