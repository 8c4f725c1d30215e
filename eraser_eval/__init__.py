"""Rationales in ERASER's format (DeYoung et al., 2020): read, written, checked, aligned and scored.

    python -m eraser_eval score --data DIR --split val --predictions FILE [--json] [--per-document FILE]
    python -m eraser_eval validate --data DIR [--split val --predictions FILE]

`score` reports the official scorer's numbers under its names (github.com/jayded/eraserbenchmark), the right value under
`corrected` where an official number misleads, an interval of every number, and notes. docs/rationale-scorer.md says
which numbers mislead, which input is refused, and how to use the package from Python. It needs only numpy.
"""

from eraser_eval.errors import InputError
from eraser_eval.formats.predictions import Erased, Prediction, Rationale, read_predictions, write_predictions
from eraser_eval.formats.schema import Annotation, EraserDataset, Evidence, read_dataset, write_dataset
from eraser_eval.scorer import Settings
from eraser_eval.scoring import score, validate

__all__ = [
    "Annotation",
    "Erased",
    "EraserDataset",
    "Evidence",
    "InputError",
    "Prediction",
    "Rationale",
    "Settings",
    "read_dataset",
    "read_predictions",
    "score",
    "validate",
    "write_dataset",
    "write_predictions",
]
