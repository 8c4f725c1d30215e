"""Word pieces to words to ERASER tokens, and back, through character offsets.

A model scores word pieces, people mark words, ERASER counts tokens separated by blanks. All three are runs of
characters [start, end) of one text, so an `Alignment` says in which coarse unit each fine unit lies: `pool` carries
values to the coarse units, `spread` back, and pooling what was spread gives the values back exactly.

    pieces = aligned(piece_offsets, token_offsets(text))
    scores = pieces.pool(piece_scores, how="sum")               # [tokens]
    keep = pieces.spread(token_mask, how="max")                 # [pieces]

Documents longer than a model's input are read in windows: `windows` cuts them, `merged` puts the values together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eraser_eval.documents import TOKEN
from eraser_eval.errors import InputError

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
        """Values of the coarse units [coarse] from those of the fine units [fine]; `fill` where there is none.

        Raises:
            InputError: there are more or fewer values than fine units, or the pooling is unknown.
        """
        given = _values(values, length=len(self.units), how=how)
        inside = self.units >= 0
        return _pooled(given[inside], self.units[inside], size=self.size, how=how, fill=fill)

    def spread(self, values: ArrayLike, *, how: Pooling, fill: float = 0.0) -> NDArray[np.float64]:
        """Values of the fine units [fine] from those of the coarse units [coarse]; `fill` outside of them.

        Every fine unit has its coarse unit's value; for a sum the first has it and the others 0, so that `pool` with
        the same `how` gives back exactly what was spread.

        Raises:
            InputError: there are more or fewer values than coarse units, or the pooling is unknown.
        """
        given = _values(values, length=self.size, how=how)
        inside = np.flatnonzero(self.units >= 0)
        found = np.full(len(self.units), fill)
        found[inside] = given[self.units[inside]]
        if how == "sum":
            first = np.unique(self.units[inside], return_index=True)[1]
            found[np.delete(inside, first)] = 0.0
        return found

    def then(self, coarser: Alignment) -> Alignment:
        """From this one's fine units to another one's coarse units: pieces to words, then words to tokens.

        Raises:
            InputError: the coarse units of this one are not the fine units of the other.
        """
        if self.size != len(coarser.units):
            raise InputError(f"{self.size} units cannot be aligned with {len(coarser.units)}; align the same units")
        inside = self.units >= 0
        found = np.full(len(self.units), -1, np.int64)
        found[inside] = coarser.units[self.units[inside]]
        return Alignment(found, coarser.size)


def token_offsets(document: str) -> Offsets:
    """The characters of each ERASER token of a document [n, 2]."""
    return np.array([match.span() for match in TOKEN.finditer(document)], np.int64).reshape(-1, 2)


def aligned(fine: ArrayLike, coarse: ArrayLike) -> Alignment:
    """Which of the `coarse` runs [c, 2] each of the `fine` runs [f, 2] lies in; of several, where most of it lies.

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
    """Runs of at most `size` of `length` pieces that cover them all, neighbours sharing `overlap`; none for nothing.

    Raises:
        InputError: `size` is not above `overlap`, or `overlap` is negative.
    """
    if not 0 <= overlap < size:
        raise InputError(f"windows of {size} pieces cannot overlap by {overlap}; it needs 0 <= overlap < size")
    for start in range(0, length, size - overlap):
        yield range(start, min(start + size, length))
        if start + size >= length:
            return


def merged(
    values: Sequence[ArrayLike],
    content: Sequence[ArrayLike],
    places: Sequence[range],
    *,
    length: int,
    how: Pooling = "mean",
    fill: float = 0.0,
) -> NDArray[np.float64]:
    """Values of the pieces of a document [length] from those of its windows, each [l] with special tokens and padding.

    Args:
        values: a value per position of each window.
        content: which positions of each window are pieces of the document: not [CLS], [SEP] or padding.
        places: which pieces of the document those are, as `windows` gave them.
        length: the number of pieces of the document.
        how: what becomes of a piece that several windows saw.
        fill: the value of a piece that no window saw.

    Raises:
        InputError: a window has other numbers of values, positions and pieces, or a piece beyond `length`.
    """
    found: list[NDArray[np.float64]] = [np.empty(0)]
    for number, (each, inside, place) in enumerate(zip(values, content, places, strict=True)):
        there, mask = np.asarray(each, np.float64), np.asarray(inside, np.bool_)
        if there.shape != mask.shape or int(mask.sum()) != len(place):
            raise InputError(
                f"window {number} has {mask.sum()} pieces in {there.shape} values, but {len(place)} places"
            )
        found.append(there[mask])
    units = np.array([piece for place in places for piece in place], np.int64)
    if len(units) and not (units.min() >= 0 and units.max() < length):
        raise InputError(f"a window reaches piece {units.max()}, but the document has {length} pieces; count from 0")
    return Alignment(units, length).pool(np.concatenate(found), how=how, fill=fill)


def _pooled(
    values: NDArray[np.float64], units: NDArray[np.int64], *, size: int, how: Pooling, fill: float
) -> NDArray[np.float64]:
    counts = np.bincount(units, minlength=size)
    found = np.full(size, -np.inf)
    np.maximum.at(found, units, values)
    if how == "mean":
        # Measured from the largest, equal values have exactly their own mean.
        found += np.bincount(units, values - found[units], minlength=size) / np.maximum(counts, 1)
    elif how == "sum":
        found = np.bincount(units, values, minlength=size)
    found[counts == 0] = fill
    return found


def _values(values: ArrayLike, *, length: int, how: Pooling) -> NDArray[np.float64]:
    given = np.asarray(values, np.float64)
    if given.shape != (length,):
        raise InputError(f"values of shape {given.shape} were given for {length} units; give one per unit")
    if how not in POOLINGS:
        raise InputError(f"pooling is called {how!r}, but there are {', '.join(POOLINGS)}")
    return given


def _offsets(offsets: ArrayLike) -> Offsets:
    found = np.asarray(offsets, np.int64).reshape(-1, 2)
    if (found[:, 1] < found[:, 0]).any():
        start, end = found[found[:, 1] < found[:, 0]][0]
        raise InputError(f"a run of characters [{start}, {end}) ends before it starts; give (start, end)")
    return found
