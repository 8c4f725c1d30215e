"""Explainers held against people's rationales: per seed and operating point a folder with all that was found.

    OUT/predictions/<method>-layer<n>.jsonl  ERASER's prediction files
    OUT/scores/<method>-layer<n>.json        everything `eraser_eval` says of each
    OUT/gold/                                the documents and annotations compared on; not of a sensitive task
    OUT/documents.parquet                    a row per method, layer and document
    OUT/table.parquet, table.csv             a row per method, layer and metric, with intervals and paired differences
    OUT/words.parquet                        which words nobody marked, and how many of them are selected
    OUT/shown.jsonl                          texts with what was selected, for the page; not of a sensitive task
    OUT/summary.json                         what this is; written last

Several seeds or points have a folder each below OUT, and `bench.rationale_overview` puts them together. What is finished is kept,
and so is what each method said of a model (`bench.explanation_store`).

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

from bench import __version__
from bench.artifacts import content_hash
from bench.comparison_files import OVERVIEW, PEOPLE, SUMMARY, forget_single, require_replaceable, summary_in
from bench.documents import Answer, Document, Mask, Precision, Reader, Values, answers, documents_of, explanations
from bench.errors import InputError
from bench.explanation_store import ExplanationStore
from bench.faithfulness import Eraser, Layers, highest, runs_of
from bench.folders import digest, disk_errors_at
from bench.gold import Gold, read_gold, require_rationales
from bench.layouts import ERASER_SPLITS
from bench.predictions import missing_stages, with_defaults
from bench.rationale_results import RationaleResults
from bench.registry import EXPLAINERS, TASKS
from bench.runner import load_models, runnable, train_all
from bench.word_pieces import holding, structural
from eraser_eval.align import Pooling
from eraser_eval.predictions import Prediction, Rationale
from eraser_eval.schema import SPLITS

if TYPE_CHECKING:
    from bench.evaluation import Runnable
    from bench.plan import Arm, Plan, Settings
    from bench.progress import Watcher

METHODS = ("adapler", "attention", "rollout", "saliency", "integrated_gradients", "random", "position", "human")
"""What is compared where nothing is named; the first explains the adaptive model, and the others are held to it."""

KEPT = "kept"


@dataclass(frozen=True)
class Asked:
    """What is compared.

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
class Read:
    """Documents, read by one model, its answers to each, and the shelf of what explainers have said of it."""

    able: Runnable
    reader: Reader
    documents: Sequence[Document]
    answers: Sequence[Answer]
    labels: Sequence[str]
    shelf: ExplanationStore
    precision: Precision = "no"

    @property
    def classes(self) -> list[int]:
        """The predicted class of each document."""
        return [int(answer.probabilities.argmax()) for answer in self.answers]

    @property
    def accuracy(self) -> float:
        """The share of documents whose class is right."""
        pairs = zip(self.classes, self.documents, strict=True)
        return float(np.mean([self.labels[answer] == document.label for answer, document in pairs]))

    @property
    def flops(self) -> int:
        """Of all documents."""
        return sum(answer.flops for answer in self.answers)

    @cached_property
    def eraser(self) -> Eraser:
        """The model, which reads documents with tokens left out."""
        return Eraser(self.able, self.reader, self.labels, self.precision, self.shelf.erased(self.labels))


def settings_of(settings: Settings) -> Settings:
    """The settings of the models that are compared: AdapLeR's at each operating point, and the one they came from."""
    return with_defaults(replace(settings, methods=("adapler",)))


def eraser_split(task: str, split: str | None) -> str:
    """ERASER's name of a split, by default of the one that the task reports on.

    Raises:
        InputError: the task has no rationales, or the split another name.
    """
    require_rationales(TASKS[task])
    found = split or ERASER_SPLITS.get(TASKS[task].evaluation, TASKS[task].evaluation)
    if found not in SPLITS:
        raise InputError(f"split is {found!r}, but rationales come in the splits {', '.join(SPLITS)}; name one of them")
    return found


def compare(plans: Sequence[Plan], asked: Asked, watcher: Watcher) -> tuple[Path, ...]:
    """Train what is missing, and compare at every operating point of every plan; the folders.

    Args:
        plans: of one task, a seed each, from `settings_of`.

    Raises:
        InputError: the task's rationales are missing or malformed.
    """
    gold = read_gold(plans[0].task, asked.split, data_dir=plans[0].settings.data_dir, limit=asked.limit)
    documents = documents_of(gold, plans[0].tokenizer)
    (asked.out / OVERVIEW).unlink(missing_ok=True)
    single = len(plans) * len(plans[0].arms[1:]) == 1
    if not single:
        forget_single(asked.out)
    folders: list[Path] = []
    fine: Read | None = None
    for plan in plans:
        train_all(plan, [job for arm in plan.arms for job in missing_stages(plan, arm)], watcher)
        for name in dict.fromkeys(arm.job.id for arm in plan.arms):
            plan.artifacts.require_whole(name)
        own = {arm.run_id: asked.out if single else asked.out / folder_of(plan, arm) for arm in plan.arms[1:]}
        folders += own.values()
        named = [(arm, identity_of(plan, arm, asked, gold)) for arm in plan.arms[1:]]
        left = [(arm, identity) for arm, identity in named if asked.fresh or not is_finished(own[arm.run_id], identity)]
        if not left:
            continue
        if fine is None or fine.shelf != shelf_of(plan, plan.arms[0], asked, gold):
            fine = read_by(plan, plan.arms[0], documents, asked, gold)
        for arm, identity in left:
            there = replace(asked, out=own[arm.run_id])
            compare_point(plan, arm, there, gold=gold, fine=fine, identity=identity, watcher=watcher)
    return tuple(folders)


def folder_of(plan: Plan, arm: Arm) -> str:
    """The name of a comparison beside others: its knobs and its seed."""
    return "-".join(f"{name}-{value}" for name, value in {**arm.knobs, "seed": plan.settings.seed}.items())


def identity_of(plan: Plan, arm: Arm, asked: Asked, gold: Gold) -> str:
    """Of everything that decides a comparison: the models, the texts, what people marked, and what was asked."""
    own = {name: value for name, value in vars(asked).items() if name not in {"out", "fresh"}}
    return content_hash([model_on(plan, arm, gold), own])


def model_on(plan: Plan, arm: Arm, gold: Gold) -> str:
    """The identity of a trained model on marked documents."""
    weights = digest(plan.artifacts.folder(arm.job.id) / "model.safetensors")
    typed = holding(structural(plan.tokenizer), [gold.documents.values()])
    read_as = ["special tokens are text"] if typed else []  # once they were read as the tokens
    return content_hash([__version__, arm.job.id, weights, dict(arm.knobs), gold.identity, *read_as])


def shelf_of(plan: Plan, arm: Arm, asked: Asked, gold: Gold) -> ExplanationStore:
    """Where what is said of a trained model on these documents is kept."""
    return ExplanationStore(plan.settings.store / "explained" / f"{model_on(plan, arm, gold)}-{asked.precision}")


def is_finished(folder: Path, identity: str) -> bool:
    """Whether the folder holds the whole of this comparison; one that is damaged is made again."""
    try:
        return summary_in(folder).get("identity") == identity
    except InputError:
        return False


def compare_point(
    plan: Plan, arm: Arm, asked: Asked, *, gold: Gold, fine: Read, identity: str, watcher: Watcher
) -> None:
    """Explain at one operating point, score, and write everything to the folder."""
    adaptive = read_by(plan, arm, fine.documents, asked, gold)
    (asked.out / SUMMARY).unlink(missing_ok=True)
    for folder in ("predictions", "scores", "gold"):
        shutil.rmtree(asked.out / folder, ignore_errors=True)
    for folder in ("predictions", "scores"):
        (asked.out / folder).mkdir(parents=True)
    kept = [own > 0 for own in scores_of(KEPT, adaptive, "max", watcher=watcher)]
    named = asked.show_text or not plan.task.sensitive
    with gold_folder(gold, asked.out / "gold" if named else None) as place:
        findings = RationaleResults(asked.out, place, asked.split, fine.documents, named=named)
        for method in asked.methods:
            read = adaptive if EXPLAINERS[method].adaptive else fine
            compare_method(method, read, kept, asked=asked, findings=findings, watcher=watcher)
    summary = summary_of(plan, arm, asked, fine=fine, adaptive=adaptive, kept=kept)
    findings.write({**summary, "identity": identity})


def compare_method(
    method: str, read: Read, kept: Sequence[Mask], *, asked: Asked, findings: RationaleResults, watcher: Watcher
) -> None:
    """Explain by one method, and add what it finds in every layer."""
    scores = scores_of(method, read, asked.pooling, watcher=watcher)
    layers = read.able.model.config.num_hidden_layers
    erased = {"all": range(layers), "last": [layers - 1], "none": []}[asked.erased]
    with watcher.counting(f"score {method}", layers) as advance:
        for layer in range(layers):
            values = [own[layer if len(own) > 1 else 0] for own in scores]
            chosen = selected(method, values, [own[layer] for own in kept])
            eraser = read.eraser if layer in erased else None
            findings.add(method, layer, predictions=predicted(read, values, chosen, eraser), chosen=chosen)
            advance(1)
    if erased:
        read.shelf.add_erased(read.eraser.known)


def read_by(plan: Plan, arm: Arm, documents: Sequence[Document], asked: Asked, gold: Gold) -> Read:
    """The documents read by an arm's model as it runs, in float32."""
    able = runnable(plan, arm, load_models(plan, [arm]))
    cls, sep = plan.tokenizer("")["input_ids"]
    reader = Reader(cls, sep, plan.max_length, plan.task.windows)
    found = answers(able, reader, [(document, None) for document in documents])
    shelf = shelf_of(plan, arm, asked, gold)
    if asked.fresh:
        shelf.clear()
    return Read(able, reader, documents, found, plan.task.labels, shelf, asked.precision)


def scores_of(method: str, read: Read, pooling: Pooling, *, watcher: Watcher) -> list[Values]:
    """Each document's token scores [layers or 1, tokens]; a layer without any has those of the layer before."""
    lengths = [len(document.tokens) for document in read.documents]
    return read.shelf.scores(f"{method}-{pooling}", lengths, lambda: explained_by(method, read, pooling, watcher))


def explained_by(method: str, read: Read, pooling: Pooling, watcher: Watcher) -> list[Values]:
    """As `scores_of`, asked of the model."""
    windows = sum(len(read.reader.places(document)) for document in read.documents)
    with watcher.counting(f"explain {method}", windows) as advance:
        found = explanations(
            EXPLAINERS[method],
            read.able,
            read.reader,
            documents=read.documents,
            classes=read.classes,
            pooling=pooling,
            precision=read.precision,
            advance=advance,
        )
    for scores in found if method != KEPT else ():
        for layer in range(1, len(scores)):
            if not scores[layer].any():
                scores[layer] = scores[layer - 1]
    return found


def selected(method: str, scores: Sequence[Values], kept: Sequence[Mask]) -> list[Mask]:
    """The rationale of each document: what AdapLeR keeps, or as many tokens of the highest scores.

    People who marked nothing selected nothing.
    """
    if EXPLAINERS[method].adaptive:
        return list(kept)
    silent = [method == PEOPLE and not values.any() for values in scores]
    counts = [0 if nothing else int(own.sum()) for nothing, own in zip(silent, kept, strict=True)]
    return [highest(values, count) for values, count in zip(scores, counts, strict=True)]


def predicted(read: Read, scores: Sequence[Values], chosen: Sequence[Mask], eraser: Eraser | None) -> list[Prediction]:
    """The lines of a prediction file."""
    found = [
        Prediction(
            document.annotation_id,
            (Rationale(document.docid, hard=runs_of(own), soft=values),),
            classification=read.labels[answer],
            scores=dict(zip(read.labels, said.probabilities.tolist(), strict=True)),
        )
        for document, values, own, answer, said in zip(
            read.documents, scores, chosen, read.classes, read.answers, strict=True
        )
    ]
    if eraser is None:
        return found
    erased = eraser.erased(read.documents, scores, chosen)
    return [replace(line, erased=own, thresholded=shares) for line, (own, shares) in zip(found, erased, strict=True)]


@contextmanager
def gold_folder(gold: Gold, place: Path | None) -> Iterator[Path]:
    """The gold as the scorer reads it: at `place`, or else in a folder that is gone afterwards."""
    if place is not None:
        with disk_errors_at(place):
            gold.write(place)
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        gold.write(Path(folder))
        yield Path(folder)


def summary_of(
    plan: Plan, arm: Arm, asked: Asked, *, fine: Read, adaptive: Read, kept: Sequence[Mask]
) -> dict[str, Any]:
    """What the numbers belong to."""
    counts = np.sum([own.sum(1) for own in kept], axis=0)
    return {
        "task": plan.task.name,
        "source": plan.task.source,
        "synthetic": plan.task.synthetic,
        "sensitive": plan.task.sensitive,
        "methods": {name: EXPLAINERS[name].summary for name in asked.methods},
        "controls": [name for name in asked.methods if EXPLAINERS[name].control],
        "layers": len(counts),
        "kept": (counts / sum(len(document.tokens) for document in fine.documents)).tolist(),
        "pooling": asked.pooling,
        "erased": asked.erased,
        "precision": asked.precision,
        "accuracy": {"fine-tuned": fine.accuracy, "adapler": adaptive.accuracy},
        "speedup": fine.flops / adaptive.flops,
        "seeds": [plan.settings.seed],
        "finetune_seeds": [plan.settings.first_seed],
        "backbone": plan.backbone.name,
        "preset": plan.preset.name,
        "knobs": dict(arm.knobs),
        "artifacts": {job.stage.name: job.id for job in arm.job.chain},
        "max_length": plan.max_length,
        "environment": dict(plan.environment),
    }
