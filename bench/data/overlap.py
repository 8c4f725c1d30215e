"""Reported rows that a model has been trained on: their texts are among the training rows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

LEFT_OUT = ("P", "Z", "Cc", "Cf")
"""Unicode categories that a likeness leaves out: punctuation, spaces, and what is not seen."""

Known = Mapping[bytes, Set[object]]
"""Digest of a row's texts -> the labels that training rows have with them."""


@dataclass(frozen=True)
class Overlap:
    """How many reported rows have the texts of a training row.

    Attributes:
        exact: to the letter.
        normalised: but for case, spaces, punctuation and Unicode's compatible forms; those of `exact` among them.
        other_label: of `normalised`, those that no training row with these texts has the label of.
    """

    exact: int
    normalised: int
    other_label: int


def overlap(training: Iterable[Dataset], reported: Dataset) -> Overlap:
    """Count the reported rows whose text, or pair of texts, is that of a training row."""
    tables = list(training)
    known = labels_by_text(tables, str)
    alike = labels_by_text(tables, normalise)
    labels_by_row = [alike.get(key, frozenset()) for key in digests(reported, normalise)]
    return Overlap(
        exact=sum(key in known for key in digests(reported, str)),
        normalised=sum(map(bool, labels_by_row)),
        other_label=sum(
            bool(labels) and label not in labels
            for labels, label in zip(labels_by_row, reported["label"][:], strict=True)
        ),
    )


def labels_by_text(tables: Iterable[Dataset], form: Callable[[str], str]) -> Known:
    """Return the labels of each text of some tables, by its digest in a form."""
    labels_of: dict[bytes, set[object]] = {}
    for table in tables:
        for key, label in zip(digests(table, form), table["label"][:], strict=True):
            labels_of.setdefault(key, set()).add(label)
    return labels_of


def digests(table: Dataset, form: Callable[[str], str]) -> Iterator[bytes]:
    """Yield sixteen bytes for the texts of each row, of which there may be hundreds of thousands."""
    columns = [table[name][:] for name in ("text", "pair") if name in table.column_names]
    for texts in zip(*columns, strict=True):
        hasher = hashlib.blake2b(digest_size=16)
        for text in texts:
            content = form(text).encode("utf8", "surrogatepass")
            hasher.update(len(content).to_bytes(8, "big") + content)
        yield hasher.digest()


def normalise(text: str) -> str:
    """Return a text without what `LEFT_OUT` names, case-folded, in NFKC; where nothing is left, without its spaces."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.translate(ignored_code_points()) or "".join(folded.split())


@cache
def ignored_code_points() -> dict[int, None]:
    """Return the code points of `LEFT_OUT`, as `str.translate` takes them; none lies in the planes between."""
    points = (*range(0x20000), *range(0xE0000, 0xE1000))
    return {point: None for point in points if unicodedata.category(chr(point)).startswith(LEFT_OUT)}
