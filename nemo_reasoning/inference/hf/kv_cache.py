"""Keys and values of a running batch, with a place of its own for every row."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from nemo_reasoning.inference.hf.attention import Piece

_BLOCK = 256  # positions by which the cache grows
_VIEW = 64  # attention sees a multiple of this many: sums then add up in the same order in every batch


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple that is no less than a number."""
    return -(-number // multiple) * multiple


class Block(NamedTuple):
    """Tokens that consecutive rows take in a forward pass, as many each.

    Attributes:
        first: The first of the rows.
        starts: How many positions each of them holds already.
        new: Tokens of each row.
    """

    first: int
    starts: Sequence[int]
    new: int


class KVCache:
    """A key-value cache whose rows come, grow and go independently.

    Row r of every layer holds the keys and values of one request at positions 0, 1, 2, ...; what lies
    beyond a row's length is garbage that the mask hides. Stands in for transformers' `Cache`, of which a
    forward pass needs `update` and `get_seq_length` alone.

    Attributes:
        pieces: Of the tokens of `aim`.
        positions: int64 [1, tokens] of the tokens of `aim`.
    """

    is_compileable = False

    def __init__(self, *, layers: int, groups: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        """Take the number of layers and of key-value heads, and the size of a head; nothing is allocated yet."""
        self._shape = (groups, size)
        self._options: dict[str, Any] = {"dtype": dtype, "device": device}
        self._rows = self._length = 0
        self._layers = [torch.empty(0) for _ in range(2 * layers)]  # each [rows, length, groups, size]
        self.pieces: list[Piece] = []

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
    def allocated(self) -> int:
        """Positions of all rows, used or not."""
        return self._rows * self._length

    @property
    def empty(self) -> bool:
        """Whether it holds no row: nothing was reserved yet, or there was no memory for what was."""
        return self._rows == 0

    def aim(self, blocks: Sequence[Block], *, spare: int = 0) -> None:
        """Say where the next forward pass writes, and what its tokens may attend to.

        Args:
            blocks: Of the tokens, in the order they stand in.
            spare: Tokens behind them that only fill up: they attend to nothing, and write behind the last one.
        """
        device, self.pieces = self._options["device"], []
        places: list[torch.Tensor] = []
        positions: list[torch.Tensor] = []
        for block in blocks:
            seen = min(round_up(max(block.starts) + block.new, _VIEW), self._length)
            at = torch.tensor(block.starts, device=device)[:, None] + torch.arange(block.new, device=device)
            mask = (torch.arange(seen, device=device) <= at[..., None])[:, None]
            end = block.first + len(block.starts)
            rows = torch.arange(block.first, end, device=device)[:, None]
            self.pieces.append(Piece(slice(block.first, end), block.new, seen, mask))
            places.append((rows * self._length + at).flatten())
            positions.append(at.flatten())
        if spare:
            behind = torch.arange(1, spare + 1, device=device)
            places.append(places[-1][-1] + behind)
            positions.append(positions[-1][-1] + behind)
        self._places, self.positions = torch.cat(places), torch.cat(positions)[None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, cache_kwargs: Any = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Write new keys and values [1, groups, tokens, size], and return what each piece sees of all.

        Those are [rows, groups, seen, size] each.
        """
        return self._put(2 * layer_idx, key_states), self._put(2 * layer_idx + 1, value_states)

    def _put(self, number: int, states: torch.Tensor) -> list[torch.Tensor]:
        whole = self._layers[number]
        whole.view(-1, *self._shape).index_copy_(0, self._places, states[0].transpose(0, 1))
        return [whole[piece.rows, : piece.seen].transpose(1, 2) for piece in self.pieces]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: places are told by `positions`."""
        return 0

    def move(self, source: int, target: int, *, length: int) -> None:
        """Copy a row's first positions to another row."""
        for layer in self._layers:
            layer[target, :length] = layer[source, :length]

    def copy(self, row: int, *, length: int) -> list[torch.Tensor]:
        """Return the keys and values of a row's first positions."""
        return [layer[row, :length].clone() for layer in self._layers]

    def put(self, row: int, states: Sequence[torch.Tensor], *, length: int) -> None:
        """Write the first positions of what `copy` returned over those of a row."""
        for layer, kept in zip(self._layers, states, strict=True):
            layer[row, :length] = kept[:length]

    def wipe(self, row: int) -> None:
        """Write zeros over a row."""
        for layer in self._layers:
            layer[row] = 0
