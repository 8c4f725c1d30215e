"""Rationales in ERASER's format (DeYoung et al., 2020): read, written, checked, aligned and scored.

    python -m eraser_eval score --data DIR --split val --predictions FILE [--json] [--per-document FILE]
    python -m eraser_eval validate --data DIR [--split val --predictions FILE]

`score` reports under the official scorer's names (github.com/jayded/eraserbenchmark, `rationale_benchmark/metrics.py`)
the official scorer's numbers: `iou_scores`, `rationale_prf`, `token_prf`, `token_soft_metrics`,
`sentence_soft_metrics`, `classification_scores`. It adds `agreement` (mean average precision and false-positive rates,
`eraser_eval.agreement`), `tokens_to_flip_mean_fraction` (which the official scorer computes and drops), an interval of
every number (`intervals`), and `notes`: what a reader of these numbers has to know. A number that does not exist is
null, never NaN, 0 or left out. Memory grows by about a kilobyte per document, however long the documents are.

Where an official number misleads, it is reported as it is, a note says so, and `corrected` has the right one under
the same name:

- IOU recall counts the predicted spans that meet a marked one, so it can exceed 1, and F1 with it. `corrected` counts
  the marked spans that are met.
- AUPRC counts a document without marked tokens as 0.5 whatever the model does (with scikit-learn 1.x; with the
  official requirement, 0.20.3, the whole score becomes NaN; everything else is the same with both, and here needs
  neither). `corrected` leaves such documents out, as the official average precision does.
- AUPRC of a document whose tokens all have one score is half of 1 + the share of marked tokens, by interpolation. A
  note counts such documents; average precision has the right value for them, the share itself.
- KL is infinite where a class with probability 0 becomes possible after erasing. It is null then, and `corrected` has
  the mean of the other lines.

Where the official scorer crashes, divides by zero, or depends on the order of the lines, this one answers:

- The first line decides nothing. A file in which nothing is predicted has precision, recall and F1 0; where nothing is
  marked, recall and F1 are null.
- The classes are those of the gold and of the predictions, so that a subset of one class can be scored.
- Thresholds are compared with a tolerance. Without `--aopc-thresholds` the official five are used if the file has them
  all, and otherwise the file's own.
- Documents are split into tokens alike in both layouts: at blanks, tabs and line ends, blank lines left out.
- An annotation without evidence is about the documents that it lists, or else about the one of its own name.

What the official scorer lets pass or stumbles over is refused in one line with file, line, value, rule and remedy, and
exit code 2:

- lines: what is not one JSON object in UTF-8; half a surrogate pair; keys that occur twice; NaN, Infinity, null,
  booleans and strings where a number belongs; lines above 16 MiB; damaged gzip files. (A byte order mark and blank
  lines are accepted; an unknown field of a prediction is ignored with a note, one of the gold without.)
- names: annotations that are missing, unknown or there twice; documents that are missing, entered twice, or not of
  their annotation; classes that nobody else uses; both layouts of documents at once.
- spans: reversed, empty, negative, overlapping, or past the end. (A repeated span counts once.) The gold is held to the
  same, except that it may overlap, and that a few published spans are empty (movie reviews, test): they count as spans
  that nobody can find, with a note, as long as their annotation has others.
- scores: not one per token or sentence; sentence scores where the gold has no sentences; fields that only some lines
  have; a document with evidence but without scores.
- classes: a class without probabilities or outside of them; different classes before and after erasing; probabilities
  below 0, or whose sum is not 1 within 0.01. (A class that is not the most probable one is accepted with a note.)
- thresholds outside (0, 1], repeated, or different between lines; tokens_to_flip beyond the document.
"""

from eraser_eval.errors import InputError
from eraser_eval.predictions import Erased, Prediction, Rationale, read_predictions, write_predictions
from eraser_eval.schema import Annotation, EraserDataset, Evidence, read_dataset, write_dataset
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
