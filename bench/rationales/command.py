"""Compare explainers with people's rationales (`bench rationales`): a folder for each seed and operating point.

    OUT/predictions/<method>-layer<n>.jsonl  ERASER's prediction files
    OUT/scores/<method>-layer<n>.json        everything `eraser_eval` says of each
    OUT/gold/                                the documents and annotations compared on; not of a sensitive task
    OUT/documents.parquet                    a row per method, layer and document
    OUT/table.parquet, table.csv             a row per method, layer and metric, with intervals and paired differences
    OUT/words.parquet                        which words nobody marked, and how many of them are selected
    OUT/shown.jsonl                          texts with what was selected, for the page; not of a sensitive task
    OUT/summary.json                         what this is; written last

Several seeds or points have a folder each below OUT, and `bench.rationales.overview` pools them. What is finished is
kept, and so are each method's explanations of a model (`bench.rationales.explanation_store`).

Layers count from 0. AdapLeR's rationale in a layer are the tokens that the layer runs on; every other method selects
as many, those of its highest scores. Where a layer runs on no token but [CLS] and [SEP], AdapLeR's scores are those of
the layer before.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.layouts import ERASER_SPLITS
from bench.errors import InputError
from bench.rationales.documents import Document, Mask, Precision, Values, documents_of
from bench.rationales.explained_model import (
    KEPT,
    ExplainedModel,
    model_identity,
    read_documents,
    store_of,
    token_scores,
)
from bench.rationales.faithfulness import Eraser, Layers, highest, runs_of
from bench.rationales.files import OVERVIEW, PEOPLE, SUMMARY, delete_single, require_replaceable, summary_in
from bench.rationales.gold import Gold, read_gold, require_rationales
from bench.rationales.results import RationaleResults
from bench.registry import EXPLAINERS, TASKS
from bench.runs.predict import missing_stages, with_defaults
from bench.runs.train import train_all
from bench.store.artifacts import content_hash
from bench.store.folders import disk_errors_at
from eraser_eval.align import Pooling
from eraser_eval.formats.predictions import Prediction, Rationale
from eraser_eval.formats.schema import SPLITS

if TYPE_CHECKING:
    from bench.planning.plan import Arm, Plan
    from bench.planning.settings import Settings
    from bench.progress import Watcher

METHODS = ("adapler", "attention", "rollout", "saliency", "integrated_gradients", "random", "position", "human")
"""The methods where none is named; the first explains the adaptive model, and the others are compared with it."""


@dataclass(frozen=True)
class RationaleSettings:
    """What is compared, and how.

    Attributes:
        methods: explainers, by name.
        split: one of ERASER's.
        out: the folder, or that of the folders.
        limit: annotations, None for all.
        pooling: from word pieces to tokens.
        erased: in which layers tokens are erased and the rest is read again.
        precision: of gradients, and of answers to what is read again.
        show_text: texts of a sensitive task are kept and shown too.
        fresh: do again what is finished.

    Raises:
        InputError: a method is unknown, or as `require_replaceable` of `out`.
    """

    methods: tuple[str, ...]
    split: str
    out: Path
    limit: int | None = None
    pooling: Pooling = "mean"
    erased: Layers = "all"
    precision: Precision = "no"
    show_text: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in self.methods:
            EXPLAINERS[name]
        require_replaceable(self.out)


@dataclass(frozen=True)
class Point:
    """An operating point to compare: an arm of a plan, the marked documents, and settings with its own folder."""

    plan: Plan
    arm: Arm
    gold: Gold
    settings: RationaleSettings

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides the comparison: the models, the texts, the marks and the settings."""
        settings = {name: value for name, value in vars(self.settings).items() if name not in {"out", "fresh"}}
        return content_hash([model_identity(self.plan, self.arm, self.gold), settings])

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds the whole of this comparison; one that is damaged is made again."""
        try:
            return summary_in(self.settings.out).get("identity") == self.identity
        except InputError:
            return False

    def read(self, arm: Arm, documents: Sequence[Document]) -> ExplainedModel:
        """Read the documents by the model of an arm of the same plan."""
        fresh, precision = self.settings.fresh, self.settings.precision
        return read_documents(self.plan, arm, documents, self.gold, precision=precision, fresh=fresh)


def settings_of_models(settings: Settings) -> Settings:
    """Return the settings of the models to compare: AdapLeR's at each operating point, and the one they came from."""
    return with_defaults(replace(settings, methods=("adapler",)))


def eraser_split(task: str, split: str | None) -> str:
    """Return ERASER's name of a split, by default of the one that the task reports on.

    Raises:
        InputError: the task has no rationales, or the split another name.
    """
    require_rationales(TASKS[task])
    name = split or ERASER_SPLITS.get(TASKS[task].evaluation, TASKS[task].evaluation)
    if name not in SPLITS:
        raise InputError(f"split is {name!r}, but rationales come in the splits {', '.join(SPLITS)}; name one of them")
    return name


def compare_rationales(plans: Sequence[Plan], settings: RationaleSettings, watcher: Watcher) -> tuple[Path, ...]:
    """Train what is missing, and compare at every operating point of every plan; return the folders.

    Args:
        plans: of one task, a seed each, from `settings_of_models`.
        settings: what is compared.
        watcher: shows progress.

    Raises:
        InputError: the task's rationales are missing or malformed.
    """
    gold = read_gold(plans[0].task, settings.split, data_dir=plans[0].settings.data_dir, limit=settings.limit)
    documents = documents_of(gold, plans[0].tokenizer)
    (settings.out / OVERVIEW).unlink(missing_ok=True)
    single = len(plans) * len(plans[0].arms[1:]) == 1
    if not single:
        delete_single(settings.out)
    folders: list[Path] = []
    full: ExplainedModel | None = None
    for plan in plans:
        train_models(plan, watcher)
        points = points_of(plan, settings, gold, single=single)
        folders += [point.settings.out for point in points]
        unfinished = [point for point in points if settings.fresh or not point.is_finished]
        if not unfinished:
            continue
        if full is None or full.store != store_of(plan, plan.arms[0], gold, settings.precision):
            full = unfinished[0].read(plan.arms[0], documents)
        for point in unfinished:
            compare_point(point, full, watcher)
    return tuple(folders)


def train_models(plan: Plan, watcher: Watcher) -> None:
    """Train what is missing of a plan's models, and check that all of them are intact."""
    train_all(plan, [job for arm in plan.arms for job in missing_stages(plan, arm)], watcher)
    for name in dict.fromkeys(arm.job.id for arm in plan.arms):
        plan.artifacts.require_whole(name)


def points_of(plan: Plan, settings: RationaleSettings, gold: Gold, *, single: bool) -> list[Point]:
    """Return the operating points of a plan; a `single` one is written to the folder itself, others below it."""
    outs = [settings.out if single else settings.out / folder_name(plan, arm) for arm in plan.arms[1:]]
    return [Point(plan, arm, gold, replace(settings, out=out)) for arm, out in zip(plan.arms[1:], outs, strict=True)]


def folder_name(plan: Plan, arm: Arm) -> str:
    """Return the name of a comparison beside others: its knobs and its seed."""
    return "-".join(f"{name}-{value}" for name, value in {**arm.knobs, "seed": plan.settings.seed}.items())


def compare_point(point: Point, full: ExplainedModel, watcher: Watcher) -> None:
    """Explain at one operating point, score, and write everything to the folder."""
    settings = point.settings
    adaptive = point.read(point.arm, full.documents)
    (settings.out / SUMMARY).unlink(missing_ok=True)
    for folder in ("predictions", "scores", "gold"):
        shutil.rmtree(settings.out / folder, ignore_errors=True)
    for folder in ("predictions", "scores"):
        (settings.out / folder).mkdir(parents=True)
    kept = [layers > 0 for layers in token_scores(KEPT, adaptive, "max", watcher=watcher)]
    with_text = settings.show_text or not point.plan.task.sensitive
    with gold_folder(point.gold, settings.out / "gold" if with_text else None) as gold:
        results = RationaleResults(settings.out, gold, settings.split, full.documents, with_text=with_text)
        for method in settings.methods:
            model = adaptive if EXPLAINERS[method].adaptive else full
            compare_method(method, model, kept, settings=settings, results=results, watcher=watcher)
    results.write({**summary_of(point, full=full, adaptive=adaptive, kept=kept), "identity": point.identity})


def compare_method(
    method: str,
    model: ExplainedModel,
    kept: Sequence[Mask],
    *,
    settings: RationaleSettings,
    results: RationaleResults,
    watcher: Watcher,
) -> None:
    """Explain by one method, and add its rationales in every layer to the results.

    Args:
        method: an explainer's name.
        model: the model it explains.
        kept: which tokens AdapLeR keeps, of each document [layers, tokens].
        settings: what is compared.
        results: where rationales are added.
        watcher: shows progress.
    """
    scores = token_scores(method, model, settings.pooling, watcher=watcher)
    layers = model.runner.model.config.num_hidden_layers
    erased = {"all": range(layers), "last": [layers - 1], "none": []}[settings.erased]
    with watcher.counting_bar(f"score {method}", layers) as advance:
        for layer in range(layers):
            values = [each[layer if len(each) > 1 else 0] for each in scores]
            chosen = select_rationales(method, values, [each[layer] for each in kept])
            predictions = make_predictions(model, values, chosen, model.eraser if layer in erased else None)
            results.add(method, layer, predictions=predictions, chosen=chosen)
            advance(1)
    if erased:
        model.store.add_erased_answers(model.eraser.known)


def select_rationales(method: str, scores: Sequence[Values], kept: Sequence[Mask]) -> list[Mask]:
    """Return the rationale of each document: what AdapLeR keeps, or as many tokens of the highest scores.

    People who marked nothing selected nothing.
    """
    if EXPLAINERS[method].adaptive:
        return list(kept)
    unmarked = [method == PEOPLE and not values.any() for values in scores]
    counts = [0 if nothing else int(mask.sum()) for nothing, mask in zip(unmarked, kept, strict=True)]
    return [highest(values, count) for values, count in zip(scores, counts, strict=True)]


def make_predictions(
    model: ExplainedModel, scores: Sequence[Values], chosen: Sequence[Mask], eraser: Eraser | None
) -> list[Prediction]:
    """Return the lines of a prediction file; with an eraser also the answers without the tokens of the rationales."""
    predictions = [
        Prediction(
            document.annotation_id,
            (Rationale(document.docid, hard=runs_of(mask), soft=values),),
            classification=model.labels[number],
            scores=dict(zip(model.labels, answer.probabilities.tolist(), strict=True)),
        )
        for document, values, mask, number, answer in zip(
            model.documents, scores, chosen, model.classes, model.answers, strict=True
        )
    ]
    if eraser is None:
        return predictions
    answers = eraser.erased_answers(model.documents, scores, chosen)
    return [
        replace(prediction, erased=erased, thresholded=shares)
        for prediction, (erased, shares) in zip(predictions, answers, strict=True)
    ]


@contextmanager
def gold_folder(gold: Gold, folder: Path | None) -> Iterator[Path]:
    """Write the gold as the scorer reads it: to a folder that stays, or without one to a temporary folder."""
    if folder is not None:
        with disk_errors_at(folder):
            gold.write(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        gold.write(Path(temporary))
        yield Path(temporary)


def summary_of(point: Point, *, full: ExplainedModel, adaptive: ExplainedModel, kept: Sequence[Mask]) -> dict[str, Any]:
    """Return what a summary says of the task, the settings and the models."""
    plan, settings = point.plan, point.settings
    counts = np.sum([mask.sum(1) for mask in kept], axis=0)
    return {
        "task": plan.task.name,
        "source": plan.task.source,
        "synthetic": plan.task.synthetic,
        "sensitive": plan.task.sensitive,
        "methods": {name: EXPLAINERS[name].summary for name in settings.methods},
        "controls": [name for name in settings.methods if EXPLAINERS[name].control],
        "layers": len(counts),
        "kept": (counts / sum(len(document.tokens) for document in full.documents)).tolist(),
        "pooling": settings.pooling,
        "erased": settings.erased,
        "precision": settings.precision,
        "accuracy": {"fine-tuned": full.accuracy, "adapler": adaptive.accuracy},
        "speedup": full.flops / adaptive.flops,
        "seeds": [plan.settings.seed],
        "finetune_seeds": [plan.settings.first_seed],
        "backbone": plan.backbone.name,
        "preset": plan.preset.name,
        "knobs": dict(point.arm.knobs),
        "artifacts": {job.stage.name: job.id for job in point.arm.job.chain},
        "max_length": plan.max_length,
        "environment": dict(plan.environment),
    }
