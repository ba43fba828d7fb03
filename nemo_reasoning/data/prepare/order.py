"""Put the kept rows in their final order."""

import numpy as np
from numpy.typing import NDArray

from nemo_reasoning.config.data import Order


def final_order(rows: NDArray[np.void], order: Order) -> NDArray[np.int64]:
    """Return the rows' numbers in the order they are written, [rows].

    Args:
        rows: Facts on the rows, of dtype ROW.
        order: Shuffled by a key that depends on a row's content and the seed; or as a curriculum, short
            completions first, where rows with and without thinking are spread evenly over each other
            (one for one where there are as many).
    """
    if order is Order.shuffle:
        return np.argsort(rows["order"], kind="stable")
    modes = [np.flatnonzero(rows["thinking"] == thinking) for thinking in (True, False)]
    by_length = [mode[np.lexsort((rows["order"][mode], rows["completion"][mode]))] for mode in modes]
    return _interleave(*by_length)


def _interleave(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge two sequences so that each is spread evenly; at a tie the first goes first."""
    places = np.concatenate([_middles(len(first), len(second)), _middles(len(second), len(first))])
    return np.concatenate([first, second])[np.argsort(places, kind="stable")]


def _middles(count: int, others: int) -> NDArray[np.int64]:
    """Return (place + 1/2) / count of each element, times 2 * count * others, which makes it whole."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * max(others, 1)
