"""What explainers have said of a model, and what it answered to texts with tokens left out: asked once, and kept.

explained/<key>/<method>-<pooling>.safetensors  token scores [layers or 1, tokens of all documents]
explained/<key>/erased.parquet                  a row per text that was read again: its document, what was left, what it
                                                was answered with

The key covers the model's weights, the documents, the marks on them and the version of this project. A killed
comparison, another operating point or another seed of the same fine-tuned model goes on from here; a changed explainer
needs `--fresh`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from bench.folders import aside
from bench.reading import Values

SCORES = "scores"

Left = tuple[str, bytes]
"""The name of an annotation, and which of its document's tokens were left, as packed bits."""


@dataclass(frozen=True)
class Shelf:
    """What is known of one model on the same documents, in a folder of its own."""

    folder: Path

    def clear(self) -> None:
        """Forget all of it (`--fresh`)."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def scores(self, name: str, lengths: Sequence[int], find: Callable[[], Sequence[Values]]) -> list[Values]:
        """Each document's scores [layers or 1, tokens] by this name; `find` is asked where they are not known yet.

        Args:
            lengths: tokens of each document.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            found = np.concatenate(find(), axis=1)
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside(path) as part:
                save_file({SCORES: np.ascontiguousarray(found)}, part)
        return np.split(load_file(path)[SCORES], np.cumsum(lengths)[:-1], axis=1)

    def erased(self, labels: Sequence[str]) -> dict[Left, Mapping[str, float]]:
        """Class probabilities of every text that was read again."""
        path = self.folder / "erased.parquet"
        if not path.is_file():
            return {}
        columns = pq.read_table(path).to_pydict()
        rows = zip(columns["annotation_id"], columns["left"], columns["probabilities"], strict=True)
        return {(name, left): dict(zip(labels, own, strict=True)) for name, left, own in rows}

    def keep_erased(self, known: Mapping[Left, Mapping[str, float]]) -> None:
        """Add to what `erased` gives back, also what another process has added since."""
        labels = list(next(iter(known.values()), {}))
        before = self.erased(labels)
        if before.keys() >= known.keys():
            return
        whole = {**before, **known}
        self.folder.mkdir(parents=True, exist_ok=True)
        columns = {
            "annotation_id": [name for name, _ in whole],
            "left": [left for _, left in whole],
            "probabilities": [list(own.values()) for own in whole.values()],
        }
        with aside(self.folder / "erased.parquet") as part:
            pq.write_table(pa.table(columns), part)
