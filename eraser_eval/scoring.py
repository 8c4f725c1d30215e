"""Score a prediction file: one pass over its lines, a few numbers kept of each, everything else derived from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eraser_eval.checks import Checks
from eraser_eval.errors import InputError
from eraser_eval.formats.gold import read_gold
from eraser_eval.formats.lines import write_objects
from eraser_eval.formats.predictions import COMPREHENSIVENESS, HARD, SENTENCES, SOFT
from eraser_eval.formats.schema import SPLITS
from eraser_eval.metrics.agreement import agreement_scores, agreement_terms
from eraser_eval.metrics.classification import classification_scores
from eraser_eval.metrics.faithfulness import KINDS, choose_thresholds, faithfulness_scores, faithfulness_terms
from eraser_eval.metrics.plausibility import hard_scores, hard_terms
from eraser_eval.metrics.ranking import ranking_scores, ranking_terms
from eraser_eval.metrics.table import Flat, Sums, Table, Terms, resample, total
from eraser_eval.notes import notes
from eraser_eval.report import LEVEL, intervals, merge, nest, point, versions
from eraser_eval.scorer import Scorer, Settings

DEFAULTS = Settings()


@dataclass(frozen=True)
class Block:
    """Numbers that come from the sums over one table."""

    name: str
    table: Table
    terms: Callable[[Terms], Terms]
    scores: Callable[[Sums], Flat]


def score(
    folder: Path, *, split: str, predictions: Path, settings: Settings = DEFAULTS, per_document: Path | None = None
) -> dict[str, Any]:
    """Compute everything that can be said of a prediction file, ready for JSON.

    Args:
        folder: the data set in ERASER's layout.
        split: the split that is predicted.
        predictions: the prediction file.
        settings: how to score.
        per_document: a file to write the values of every document to, one JSON object per line.

    Raises:
        InputError: something is missing, malformed or contradictory.
    """
    if per_document is not None and _is_input(per_document, folder, predictions):
        raise InputError(f"{per_document} is read by this command, and would be lost; give --per-document another file")
    gold = read_gold(folder, split)
    checks, scorer = Checks(gold), Scorer(gold, settings)
    documents = (values for row, line in checks.pass_over(predictions) for values in scorer.add(row, line))
    if per_document is None:
        for _ in documents:
            pass
    else:
        write_objects(per_document, documents)
    if settings.strict and not (checks.has("classification") and checks.has(COMPREHENSIVENESS)):
        raise InputError(f"{predictions} lacks classification or {COMPREHENSIVENESS}, which --strict needs; add them")
    if settings.aopc_thresholds is not None and not checks.thresholds:
        raise InputError(f"{predictions} has no thresholded_scores, so none can be chosen; leave --aopc-thresholds out")
    thresholds = choose_thresholds(checks.thresholds, settings.aopc_thresholds) if checks.thresholds else ()
    if thresholds is None:
        raise InputError(
            f"{predictions} has the thresholds {list(checks.thresholds)}, but {list(settings.aopc_thresholds or ())} "
            "were asked for; ask for some of the file's"
        )
    return _report(scorer, checks, thresholds)


def _is_input(path: Path, folder: Path, predictions: Path) -> bool:
    """Check whether a file to write is the prediction file or belongs to the data set."""
    output, documents = path.resolve(), (folder / "docs").resolve()
    inputs = (predictions, folder / "docs.jsonl", *(folder / f"{split}.jsonl" for split in SPLITS))
    return output in {each.resolve() for each in inputs} or documents in output.parents


def validate(folder: Path, *, splits: Sequence[str], predictions: Path | None = None) -> dict[str, int]:
    """Check the splits and the prediction file, and count the annotations of each split and the lines of the file.

    Raises:
        InputError: something is missing, malformed or contradictory.
    """
    counts: dict[str, int] = {}
    for split in splits:
        gold = read_gold(folder, split)
        counts |= {"documents": len(gold.sizes), split: len(gold.rows)}
        if predictions is not None:
            counts["predictions"] = sum(1 for _ in Checks(gold).pass_over(predictions))
    return counts


def _report(scorer: Scorer, checks: Checks, thresholds: Sequence[int]) -> dict[str, Any]:
    blocks = list(_blocks(scorer, checks, thresholds))
    sums = {block.name: total(block.table, block.terms) for block in blocks}
    scores: Flat = {}
    for block in blocks:
        scores |= block.scores(sums[block.name])
    if checks.has("classification"):
        sums["classes"] = scorer.classes.sums()
        scores |= classification_scores(sums["classes"], scorer.classes)
    report = nest(scores, point)
    if checks.has("classification"):
        report = merge(report, {"classification_scores": _faithfulness(checks, thresholds)})
    return (
        report
        | _intervals(blocks, scorer.settings)
        | {
            "notes": notes(scorer, checks, sums=sums, thresholds=thresholds),
            "made_with": versions(),
        }
    )


def _intervals(blocks: Sequence[Block], settings: Settings) -> dict[str, Any]:
    if not settings.resamples:
        return {}
    drawn: Flat = {}
    summed = [(block.table, block.terms) for block in blocks]
    for block, sums in zip(blocks, resample(summed, resamples=settings.resamples, seed=settings.seed), strict=True):
        drawn |= block.scores(sums)
    how = {"resamples": settings.resamples, "seed": settings.seed, "level": LEVEL, "method": "percentile"}
    over = "documents; annotations for classification_scores and tokens_to_flip"
    return {"intervals": intervals(drawn), "bootstrap": {**how, "over": over}}


def _blocks(scorer: Scorer, checks: Checks, thresholds: Sequence[int]) -> Iterator[Block]:
    if checks.has(HARD):
        iou = scorer.settings.iou_thresholds
        yield Block("hard", scorer.hard, hard_terms, partial(hard_scores, thresholds=iou))
    if checks.has(SOFT):
        yield Block("soft", scorer.soft, ranking_terms, partial(ranking_scores, block="token_soft_metrics"))
        level = not scorer.negative
        yield Block("agreement", scorer.soft, agreement_terms, partial(agreement_scores, level=level))
    if checks.has(SENTENCES):
        scores = partial(ranking_scores, block="sentence_soft_metrics")
        yield Block("sentences", scorer.sentences, ranking_terms, scores)
    if scorer.lines.rows:
        scores = partial(faithfulness_scores, thresholds=thresholds)
        yield Block("lines", scorer.lines, faithfulness_terms, scores)
    if checks.has("classification"):
        scores = partial(classification_scores, classes=scorer.classes)
        yield Block("classes", scorer.classes.table, scorer.classes.terms, scores)


def _faithfulness(checks: Checks, thresholds: Sequence[int]) -> Mapping[str, Any]:
    """Return the official fields of faithfulness, null where the file has nothing to compute them from."""
    names = [f"{kind}{suffix}" for kind in KINDS for suffix in ("", "_entropy", "_kl", "_aopc", "_aopc_points")]
    return {**dict.fromkeys(names), "aopc_thresholds": [checks.thresholds[index] for index in thresholds] or None}
