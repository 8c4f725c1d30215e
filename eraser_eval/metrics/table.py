"""Numbers of each document, their sums, and the sums of bootstrap resamples.

Every score of this package is a function of sums over documents (or over annotations), so one formula gives both the
score, from the sums of all documents, and its interval, from the sums of resampled ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Terms = Mapping[str, Array]
"""What is summed: name -> a value per document [b]."""
Sums = Mapping[str, Array]
"""Name -> a sum per resample [r]."""
Flat = dict[tuple[str | int, ...], Array]
"""Place of a number in the report -> its value per resample [r]; NaN where it is undefined."""

BLOCK = 2048
"""Documents that are resampled together; more would need more memory."""


class Table:
    """Columns of 64-bit floats that grow by rows: 8 bytes per number."""

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}
        self.rows = 0

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; every row has the names of the first."""
        if not self.rows:
            self.columns = {name: array("d") for name in row}
        for name, value in row.items():
            self.columns[name].append(value)
        self.rows += 1

    def block(self, start: int, end: int) -> Terms:
        """Return some rows of every column [end - start]."""
        return {name: np.array(column[start:end], np.float64) for name, column in self.columns.items()}


Summed = tuple[Table, Callable[[Terms], Terms]]
"""A table, and what of it is summed."""


def total(table: Table, terms: Callable[[Terms], Terms]) -> Sums:
    """Sum each term over all rows [1]."""
    sums: dict[str, Array] = {}
    for start in range(0, table.rows, BLOCK):
        for name, values in terms(table.block(start, start + BLOCK)).items():
            sums[name] = sums.get(name, np.zeros(1)) + values.sum()
    return sums


def resample(summed: Sequence[Summed], *, resamples: int, seed: int) -> list[Sums]:
    """Sum each term over as many rows, drawn with replacement, per resample [r].

    Tables with the same number of rows share the draws. The rows are drawn block by block: first how many fall into
    each block (multinomial), then which. That is the same distribution as drawing them from all rows at once, in
    bounded memory.
    """
    drawn: list[dict[str, Array]] = [{} for _ in summed]
    for rows in sorted({table.rows for table, _ in summed}):
        chosen = [index for index, (table, _) in enumerate(summed) if table.rows == rows]
        for start, weights in _draws(rows, resamples=resamples, generator=np.random.default_rng(seed)):
            for index in chosen:
                table, terms = summed[index]
                block = terms(table.block(start, start + BLOCK))
                sums = weights @ np.stack(list(block.values()), axis=1)
                for name, column in zip(block, sums.T, strict=True):
                    drawn[index][name] = drawn[index].get(name, np.zeros(resamples)) + column
    return list(drawn)


def _draws(rows: int, *, resamples: int, generator: np.random.Generator) -> Iterator[tuple[int, Array]]:
    """Yield (first row, how often each row is drawn [r, b]) of every block."""
    sizes = [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]
    drawn = generator.multinomial(rows, np.array(sizes) / rows, size=resamples)
    for index, size in enumerate(sizes):
        weights = np.empty((resamples, size))
        for resample, count in enumerate(drawn[:, index]):
            weights[resample] = np.bincount(generator.integers(size, size=count), minlength=size)
        yield index * BLOCK, weights


def ratio(one: Array, other: Array, *, empty: float = np.nan) -> Array:
    """Compute one / other, and `empty` where other is 0."""
    quotient: Array = np.full(np.broadcast(one, other).shape, empty)
    return np.divide(one, other, out=quotient, where=other != 0)


def f1(precision: Array, recall: Array) -> Array:
    """Compute the harmonic mean, 0 where both are 0."""
    return ratio(2 * precision * recall, precision + recall, empty=0.0)
