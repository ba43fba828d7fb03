"""Keys and values of a running batch, with a place of its own for every row."""

from collections.abc import Sequence
from typing import Any

import torch

_BLOCK = 256  # positions by which the cache grows
_VIEW = 64  # attention sees a multiple of this many: sums then add up in the same order in every batch


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple that is no less than a number."""
    return -(-number // multiple) * multiple


class KVCache:
    """A key-value cache whose rows come, grow and go independently.

    Row r of every layer holds the keys and values of one request at positions 0, 1, 2, ...; what lies
    beyond a row's length is garbage that the mask hides. Stands in for transformers' `Cache`, of which a
    forward pass needs `update` and `get_seq_length` alone.

    Attributes:
        mask: Boolean [rows, 1, new positions, seen positions], True where the rows of `aim` attend.
        positions: int64 [rows, new positions] of the tokens of `aim`.
    """

    is_compileable = False

    def __init__(self, *, layers: int, groups: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Take the number of layers and of key-value heads, and the size of a head; nothing is allocated yet."""
        self._shape = (groups, size)
        self._options: dict[str, Any] = {"dtype": dtype, "device": device}
        self._rows = self._length = 0
        self._layers = [torch.empty(0) for _ in range(2 * layers)]  # each [rows, length, groups, size]

    @property
    def bytes_per_position(self) -> int:
        """Memory that one position of one row takes."""
        groups, size = self._shape
        itemsize: int = torch.empty((), dtype=self._options["dtype"]).element_size()
        return len(self._layers) * groups * size * itemsize

    def reserve(self, *, rows: int, length: int, most: int) -> None:
        """Make room for a number of rows of a length, and keep what is there of them.

        Args:
            rows: How many are in use.
            length: The longest of them, in positions.
            most: Positions that the cache should not exceed, but for rounding: many short rows that are gone give their
                place back to a long one, and the other way round.

        Raises:
            Exception: Of torch, such as memory exhausted; the cache is empty then.
        """
        if rows <= self._rows and length <= self._length:
            return
        length = round_up(length, _BLOCK)
        grown = max(rows, self._rows), max(length, self._length)
        if grown[0] * grown[1] > most:
            grown = rows, length
        try:
            for number, old in enumerate(self._layers):
                self._layers[number] = self._grown(old, *grown)
        except Exception:  # some layers have grown and others have not: no row of them can be read any more
            self._rows, self._length, self._layers = 0, 0, [torch.empty(0) for _ in self._layers]
            raise
        self._rows, self._length = grown

    def _grown(self, old: torch.Tensor, rows: int, length: int) -> torch.Tensor:
        new = torch.zeros(rows, length, *self._shape, **self._options)
        if self._rows:
            kept = old[:rows, :length]
            new[: kept.shape[0], : kept.shape[1]] = kept
        return new

    @property
    def empty(self) -> bool:
        """Whether it holds no row: nothing was reserved yet, or there was no memory for what was."""
        return self._rows == 0

    def aim(self, *, first: int, starts: Sequence[int], new: int) -> None:
        """Say where the next forward pass writes, and what it may attend to.

        Args:
            first: The first row of consecutive ones.
            starts: How many positions each of them holds already.
            new: Positions that every row adds; what it needs fewer of is garbage to be written over.
        """
        device = self._options["device"]
        seen = min(round_up(max(starts) + new, _VIEW), self._length)
        begin = torch.tensor(starts, device=device)[:, None]
        self.positions = begin + torch.arange(new, device=device)
        self.mask = (torch.arange(seen, device=device) <= self.positions[..., None])[:, None]
        rows = torch.arange(first, first + len(starts), device=device)[:, None]
        self._places = (rows * self._length + self.positions).flatten()
        self._view = (slice(first, first + len(starts)), slice(0, seen))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, cache_kwargs: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values [rows, groups, new, size], and return all [rows, groups, seen, size]."""
        return self._put(2 * layer_idx, key_states), self._put(2 * layer_idx + 1, value_states)

    def _put(self, number: int, states: torch.Tensor) -> torch.Tensor:
        whole = self._layers[number]
        whole.view(-1, *self._shape).index_copy_(0, self._places, states.transpose(1, 2).reshape(-1, *self._shape))
        return whole[self._view].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: places are told by `positions`."""
        return 0

    def move(self, source: int, target: int, *, length: int) -> None:
        """Copy a row's first positions to another row."""
        for layer in self._layers:
            layer[target, :length] = layer[source, :length]

    def wipe(self, row: int) -> None:
        """Write zeros over a row."""
        for layer in self._layers:
            layer[row] = 0
