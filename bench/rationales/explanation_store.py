"""Explanations of a model and its answers to texts with tokens left out: computed once, and kept.

explained/<key>/<method>-<pooling>.safetensors  token scores [layers or 1, tokens of all documents]
explained/<key>/erased.parquet                  a row per text that was read again: its document, the tokens that were
                                                left, the class probabilities

The key covers the model's weights, the documents, the marks on them and the version of this project. A killed
comparison, another operating point or another seed of the same fine-tuned model goes on from here; a changed explainer
needs `--fresh`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bench.rationales.documents import Values
from bench.store.folders import aside, exclusive_lock

SCORES = "scores"
ERASED = "erased.parquet"
COLUMNS = ["annotation_id", "left", "probabilities"]
"""Columns of that table."""

ErasedText = tuple[str, bytes]
"""The id of an annotation, and which of its document's tokens were left, as packed bits."""


@dataclass(frozen=True)
class ExplanationStore:
    """The folder of one model on the same documents."""

    folder: Path

    def clear(self) -> None:
        """Delete all of it (`--fresh`)."""
        with exclusive_lock(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def scores(self, name: str, lengths: Sequence[int], compute: Callable[[], Sequence[Values]]) -> list[Values]:
        """Return each document's scores [layers or 1, tokens]; `compute` is called where they are not stored yet.

        Args:
            name: of the file, without its ending.
            lengths: tokens of each document.
            compute: returns the scores of each document.
        """
        path, tokens = self.folder / f"{name}.safetensors", sum(lengths)
        with exclusive_lock(self.folder):  # another command may be about to compute the same
            scores = read_scores(path, tokens)
            if scores is None:
                scores = np.ascontiguousarray(np.concatenate(compute(), axis=1))
                self.folder.mkdir(parents=True, exist_ok=True)
                with aside(path) as part:
                    save_file({SCORES: scores}, part, metadata={SCORES: array_digest(scores)})
        return np.split(scores, np.cumsum(lengths)[:-1], axis=1)

    def erased_answers(self, labels: Sequence[str]) -> dict[ErasedText, Mapping[str, float]]:
        """Return the class probabilities of every text that was read again; none where the file is damaged."""
        try:
            columns = pq.ParquetFile(self.folder / ERASED, page_checksum_verification=True).read().to_pydict()
            rows = zip(*(columns[name] for name in COLUMNS), strict=True)
            return {(str(name), bytes(left)): class_probabilities(labels, shares) for name, left, shares in rows}
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # not there, or damaged
            return {}

    def add_erased_answers(self, answers: Mapping[ErasedText, Mapping[str, float]]) -> None:
        """Add to the answers that `erased_answers` returns, and keep those that another process has added since."""
        with exclusive_lock(self.folder):
            stored = self.erased_answers(list(next(iter(answers.values()), {})))
            if stored.keys() >= answers.keys():
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside(self.folder / ERASED) as part:
                pq.write_table(erased_table({**stored, **answers}), part, write_page_checksum=True)


def erased_table(answers: Mapping[ErasedText, Mapping[str, float]]) -> pa.Table:
    """Return a table with a row for each text that was read again."""
    names, left = [name for name, _ in answers], [left for _, left in answers]
    return pa.table([names, left, [list(shares.values()) for shares in answers.values()]], names=COLUMNS)


def array_digest(scores: Values) -> str:
    """Return the SHA-256 of an array."""
    return hashlib.sha256(scores.tobytes()).hexdigest()


def read_scores(path: Path, tokens: int) -> Values | None:
    """Read stored scores; None where there are none, or they are damaged or of other documents."""
    try:
        with safe_open(path, framework="numpy") as stored:
            scores: Values = stored.get_tensor(SCORES)
            digest = (stored.metadata() or {}).get(SCORES)
    except (OSError, SafetensorError):
        return None
    intact = scores.ndim == 2 and scores.shape[1] == tokens and digest in (None, array_digest(scores))
    return scores if intact else None


def class_probabilities(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Return label -> its probability.

    Raises:
        ValueError: there are not as many of one as of the other, or they are no probabilities.
    """
    if not all(0 <= share <= 1 for share in probabilities):
        raise ValueError("probabilities lie between 0 and 1")
    return dict(zip(labels, probabilities, strict=True))
