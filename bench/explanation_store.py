"""What explainers have said of a model, and what it answered to texts with tokens left out: asked once, and kept.

explained/<key>/<method>-<pooling>.safetensors  token scores [layers or 1, tokens of all documents]
explained/<key>/erased.parquet                  a row per text that was read again: its document, what was left, what it
                                                was answered with

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

from bench.documents import Values
from bench.folders import aside, exclusive_lock

SCORES = "scores"
ERASED = "erased.parquet"
COLUMNS = ["annotation_id", "left", "probabilities"]
"""Of that table."""

Left = tuple[str, bytes]
"""The name of an annotation, and which of its document's tokens were left, as packed bits."""


@dataclass(frozen=True)
class ExplanationStore:
    """What is known of one model on the same documents, in a folder of its own."""

    folder: Path

    def clear(self) -> None:
        """Forget all of it (`--fresh`)."""
        with exclusive_lock(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def scores(self, name: str, lengths: Sequence[int], find: Callable[[], Sequence[Values]]) -> list[Values]:
        """Each document's scores [layers or 1, tokens] by this name; `find` is asked where they are not known yet.

        Args:
            lengths: tokens of each document.
        """
        path, tokens = self.folder / f"{name}.safetensors", sum(lengths)
        with exclusive_lock(self.folder):  # another command may be about to ask the same
            known = kept_scores(path, tokens)
            if known is None:
                known = np.ascontiguousarray(np.concatenate(find(), axis=1))
                self.folder.mkdir(parents=True, exist_ok=True)
                with aside(path) as part:
                    save_file({SCORES: known}, part, metadata={SCORES: content_of(known)})
        return np.split(known, np.cumsum(lengths)[:-1], axis=1)

    def erased(self, labels: Sequence[str]) -> dict[Left, Mapping[str, float]]:
        """Class probabilities of every text that was read again."""
        try:
            columns = pq.ParquetFile(self.folder / ERASED, page_checksum_verification=True).read().to_pydict()
            rows = zip(*(columns[name] for name in COLUMNS), strict=True)
            return {(str(name), bytes(left)): shares_of(labels, own) for name, left, own in rows}
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):  # not there, or damaged
            return {}

    def add_erased(self, known: Mapping[Left, Mapping[str, float]]) -> None:
        """Add to what `erased` gives back, also what another process has added since."""
        with exclusive_lock(self.folder):
            labels = list(next(iter(known.values()), {}))
            before = self.erased(labels)
            if before.keys() >= known.keys():
                return
            whole = {**before, **known}
            self.folder.mkdir(parents=True, exist_ok=True)
            names, left = [name for name, _ in whole], [left for _, left in whole]
            table = pa.table([names, left, [list(own.values()) for own in whole.values()]], names=COLUMNS)
            with aside(self.folder / ERASED) as part:
                pq.write_table(table, part, write_page_checksum=True)


def content_of(scores: Values) -> str:
    """The SHA-256 of an array, for whoever reads it back."""
    return hashlib.sha256(scores.tobytes()).hexdigest()


def kept_scores(path: Path, tokens: int) -> Values | None:
    """Scores as they were kept; None where there are none, of other documents, or damaged ones."""
    try:
        with safe_open(path, framework="numpy") as stored:
            scores: Values = stored.get_tensor(SCORES)
            known = (stored.metadata() or {}).get(SCORES)
    except (OSError, SafetensorError):
        return None
    whole = scores.ndim == 2 and scores.shape[1] == tokens and known in (None, content_of(scores))
    return scores if whole else None


def shares_of(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Label -> its probability.

    Raises:
        ValueError: there are not as many of one as of the other, or they are no probabilities.
    """
    if not all(0 <= own <= 1 for own in probabilities):
        raise ValueError("probabilities lie between 0 and 1")
    return dict(zip(labels, probabilities, strict=True))
