"""What a reader of the scores has to know of this file: where an official number misleads, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from eraser_eval.checks import Checks
from eraser_eval.errors import shorten
from eraser_eval.metrics.faithfulness import DEFAULT_THRESHOLDS, KINDS
from eraser_eval.metrics.table import Sums
from eraser_eval.scorer import Scorer, Settings


def notes(scorer: Scorer, checks: Checks, *, sums: Mapping[str, Sums], thresholds: Sequence[int]) -> list[str]:
    """Return what a reader has to know, one line each, in a fixed order."""
    lines = [*_file_notes(scorer, checks)]
    if "hard" in sums:
        lines += _hard_notes(scorer, sums["hard"])
    for name, unit in (("soft", "token"), ("sentences", "sentence")):
        if name in sums:
            lines += _soft_notes(sums[name], unit)
    if "soft" in sums:
        lines += [*_level_notes(scorer), *_unmarked_notes(scorer, sums["agreement"])]
    if "lines" in sums:
        lines += _lines_notes(scorer.settings, checks, sums=sums["lines"], thresholds=thresholds)
    return lines


def _file_notes(scorer: Scorer, checks: Checks) -> Iterator[str]:
    if scorer.gold.empty:
        yield f"{scorer.gold.empty} gold spans are empty: they count as spans that nobody can find"
    for field, where in checks.ignored.items():
        yield f"the field {shorten(field)} is not ERASER's and was ignored, first in line {where.line}"
    if checks.odd:
        yield f"{checks.odd} lines predict a class that is not the most probable one of their classification_scores"


def _hard_notes(scorer: Scorer, sums: Sums) -> Iterator[str]:
    if not sums["span_predicted"][0]:
        yield "no span is predicted anywhere: precision, recall and F1 are 0"
    if not sums["span_gold"][0]:
        yield "no span is marked anywhere: recall and F1 are undefined"
    for index, threshold in enumerate(scorer.settings.iou_thresholds):
        reached, met = (int(sums[f"{name}_{index}"][0]) for name in ("reached", "met"))
        if reached != met:
            yield (
                f"iou_scores at {threshold}: {reached} predicted spans meet {met} marked ones; the official recall "
                "counts the former, corrected.iou_scores the latter"
            )


def _soft_notes(sums: Sums, unit: str) -> Iterator[str]:
    block = f"{unit}_soft_metrics"
    documents, marked, mixed = (int(sums[name][0]) for name in ("documents", "marked", "mixed"))
    if marked != documents:
        yield (
            f"{block}.auprc counts {documents - marked} documents without a marked {unit} as 0.5 each, as the official "
            f"scorer does with scikit-learn 1.x (NaN with 0.20); corrected.{block}.auprc leaves them out"
        )
    if not mixed:
        yield f"{block}: no document has both marked and other {unit}s; ROC AUC and average precision are undefined"


def _level_notes(scorer: Scorer) -> Iterator[str]:
    if scorer.constant:
        yield (
            f"{scorer.constant} documents have one score for all tokens: the AUPRC of such a document is half of 1 + "
            "its share of marked tokens, though it says nothing; read average_precision"
        )
    if scorer.negative:
        yield f"{scorer.negative} documents have scores below 0: no false-positive rate at the level 1/n exists"


def _unmarked_notes(scorer: Scorer, sums: Sums) -> Iterator[str]:
    documents, marked = int(sums["documents"][0]), int(sums["with_rationale"][0])
    if scorer.negative or marked == documents:
        return
    if not marked:
        yield "agreement: nobody marked a token, so no precision and no false-positive rate exists"
        return
    yield (
        f"agreement.fpr_mean_over_documents and fpr_pooled count all that is predicted in {documents - marked} "
        "documents without a marked token as false, people's own marks too; those of documents_with_rationale do not"
    )


def _lines_notes(settings: Settings, checks: Checks, *, sums: Sums, thresholds: Sequence[int]) -> Iterator[str]:
    for kind in KINDS:
        infinite = int((sums["rows"] - sums[f"{kind}_kl#"])[0]) if f"{kind}_kl#" in sums else 0
        if infinite:
            yield (
                f"{kind}_kl is infinite, for {infinite} lines give probability 0 to a class that is possible after "
                f"erasing; corrected.classification_scores.{kind}_kl is the mean of the others"
            )
    if settings.aopc_thresholds is None and len(thresholds) not in {0, len(DEFAULT_THRESHOLDS)}:
        yield f"AOPC is over the file's own thresholds, {list(checks.thresholds)}, for it lacks some official ones"
