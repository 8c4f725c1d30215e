"""Word pieces to words to ERASER tokens, and back, through character offsets.

A model scores word pieces, people mark words, ERASER counts tokens separated by blanks. All three are runs of
characters [start, end) of one text, so an `Alignment` says in which coarse unit each fine unit lies: `pool` carries
values to the coarse units, `spread` back, and pooling what was spread gives the values back exactly.

    pieces = align(piece_offsets, token_offsets(text))
    scores = pieces.pool(piece_scores, how="sum")               # [tokens]
    keep = pieces.spread(token_mask, how="max")                 # [pieces]

Documents longer than a model's input are read in windows: `windows` cuts them, `merge_windows` joins the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eraser_eval.errors import InputError
from eraser_eval.formats.documents import TOKEN

Pooling = Literal["sum", "mean", "max"]
Offsets = NDArray[np.int64]
"""Characters [start, end) of each unit [n, 2]; special tokens and padding are empty, like (0, 0)."""

POOLINGS: tuple[Pooling, ...] = ("sum", "mean", "max")


@dataclass(frozen=True)
class Alignment:
    """In which coarse unit each fine unit lies.

    Attributes:
        units: the coarse unit of each fine unit [fine], -1 for none.
        size: the number of coarse units.
    """

    units: NDArray[np.int64]
    size: int

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which coarse units have a fine unit [coarse]; a model has seen nothing of the others."""
        return np.bincount(self.units[self.units >= 0], minlength=self.size) > 0

    def pool(self, values: ArrayLike, *, how: Pooling, fill: float = 0.0) -> NDArray[np.float64]:
        """Pool values of fine units [fine] into those of coarse units [coarse]; `fill` where a unit has none.

        Raises:
            InputError: there are more or fewer values than fine units, or the pooling is unknown.
        """
        given = _values(values, length=len(self.units), how=how)
        inside = self.units >= 0
        return _pool(given[inside], self.units[inside], size=self.size, how=how, fill=fill)

    def spread(self, values: ArrayLike, *, how: Pooling, fill: float = 0.0) -> NDArray[np.float64]:
        """Spread values of coarse units [coarse] over fine units [fine]; `fill` outside of them.

        Every fine unit has its coarse unit's value; for a sum the first has it and the others 0, so that `pool` with
        the same `how` gives back exactly what was spread.

        Raises:
            InputError: there are more or fewer values than coarse units, or the pooling is unknown.
        """
        given = _values(values, length=self.size, how=how)
        inside = np.flatnonzero(self.units >= 0)
        fine = np.full(len(self.units), fill)
        fine[inside] = given[self.units[inside]]
        if how == "sum":
            first = np.unique(self.units[inside], return_index=True)[1]
            fine[np.delete(inside, first)] = 0.0
        return fine

    def compose(self, coarser: Alignment) -> Alignment:
        """Join this alignment with a coarser one: pieces to words and words to tokens give pieces to tokens.

        Raises:
            InputError: the coarse units of this one are not the fine units of the other.
        """
        if self.size != len(coarser.units):
            raise InputError(f"{self.size} units cannot be aligned with {len(coarser.units)}; align the same units")
        inside = self.units >= 0
        units = np.full(len(self.units), -1, np.int64)
        units[inside] = coarser.units[self.units[inside]]
        return Alignment(units, coarser.size)


def token_offsets(document: str) -> Offsets:
    """Return the characters of each ERASER token of a document, [n, 2]."""
    return np.array([match.span() for match in TOKEN.finditer(document)], np.int64).reshape(-1, 2)


def align(fine: ArrayLike, coarse: ArrayLike) -> Alignment:
    """Find the `coarse` run [c, 2] that each `fine` run [f, 2] lies in; of several, the one that holds most of it.

    Runs are characters of one text. Empty runs (special tokens, padding) and runs between the coarse ones lie in none.
    The coarse runs must be ascending and apart; the fine ones may be in any order, and may overlap.

    Raises:
        InputError: a run ends before it starts, or the coarse runs are not ascending.
    """
    small, large = _offsets(fine), _offsets(coarse)
    if (large[1:, 0] < large[:-1, 1]).any():
        raise InputError("the coarse runs of characters overlap or are out of order; sort them")
    units = np.full(len(small), -1, np.int64)
    if not len(large):
        return Alignment(units, 0)
    # Ascending and apart: the runs that one meets are a range.
    first = np.searchsorted(large[:, 1], small[:, 0], side="right")
    last = np.searchsorted(large[:, 0], small[:, 1], side="left")
    for index in np.flatnonzero((small[:, 1] > small[:, 0]) & (last > first)):
        met = large[first[index] : last[index]]
        shared = np.minimum(met[:, 1], small[index, 1]) - np.maximum(met[:, 0], small[index, 0])
        if shared.max() > 0:
            units[index] = first[index] + int(shared.argmax())
    return Alignment(units, len(large))


def windows(length: int, *, size: int, overlap: int = 0) -> Iterator[range]:
    """Yield runs of at most `size` of `length` pieces that cover all; neighbours share `overlap` pieces.

    Raises:
        InputError: `size` is not above `overlap`, or `overlap` is negative.
    """
    if not 0 <= overlap < size:
        raise InputError(f"windows of {size} pieces cannot overlap by {overlap}; it needs 0 <= overlap < size")
    for start in range(0, length, size - overlap):
        yield range(start, min(start + size, length))
        if start + size >= length:
            return


def merge_windows(
    values: Sequence[ArrayLike],
    content: Sequence[ArrayLike],
    pieces: Sequence[range],
    *,
    length: int,
    how: Pooling = "mean",
    fill: float = 0.0,
) -> NDArray[np.float64]:
    """Merge the values of a document's windows, each [l] with special tokens and padding, into [length] values.

    Args:
        values: a value per position of each window.
        content: which positions of each window are pieces of the document: not [CLS], [SEP] or padding.
        pieces: which pieces of the document those are, as `windows` gave them.
        length: the number of pieces of the document.
        how: what becomes of a piece that several windows saw.
        fill: the value of a piece that no window saw.

    Raises:
        InputError: a window has other numbers of values, positions and pieces, or a piece beyond `length`.
    """
    parts: list[NDArray[np.float64]] = [np.empty(0)]
    for number, (each, inside, window_pieces) in enumerate(zip(values, content, pieces, strict=True)):
        window_values, mask = np.asarray(each, np.float64), np.asarray(inside, np.bool_)
        if window_values.shape != mask.shape or int(mask.sum()) != len(window_pieces):
            raise InputError(
                f"window {number} has {mask.sum()} pieces in {window_values.shape} values, but {len(window_pieces)} "
                "places"
            )
        parts.append(window_values[mask])
    units = np.array([piece for window_pieces in pieces for piece in window_pieces], np.int64)
    if len(units) and not (units.min() >= 0 and units.max() < length):
        raise InputError(f"a window reaches piece {units.max()}, but the document has {length} pieces; count from 0")
    return Alignment(units, length).pool(np.concatenate(parts), how=how, fill=fill)


def _pool(
    values: NDArray[np.float64], units: NDArray[np.int64], *, size: int, how: Pooling, fill: float
) -> NDArray[np.float64]:
    counts = np.bincount(units, minlength=size)
    pooled = np.full(size, -np.inf)
    np.maximum.at(pooled, units, values)
    if how == "mean":
        # Measured from the largest, equal values have exactly their own mean.
        pooled += np.bincount(units, values - pooled[units], minlength=size) / np.maximum(counts, 1)
    elif how == "sum":
        pooled = np.bincount(units, values, minlength=size)
    pooled[counts == 0] = fill
    return pooled


def _values(values: ArrayLike, *, length: int, how: Pooling) -> NDArray[np.float64]:
    given = np.asarray(values, np.float64)
    if given.shape != (length,):
        raise InputError(f"values of shape {given.shape} were given for {length} units; give one per unit")
    if how not in POOLINGS:
        raise InputError(f"pooling is called {how!r}, but there are {', '.join(POOLINGS)}")
    return given


def _offsets(offsets: ArrayLike) -> Offsets:
    runs = np.asarray(offsets, np.int64).reshape(-1, 2)
    if (runs[:, 1] < runs[:, 0]).any():
        start, end = runs[runs[:, 1] < runs[:, 0]][0]
        raise InputError(f"a run of characters [{start}, {end}) ends before it starts; give (start, end)")
    return runs
