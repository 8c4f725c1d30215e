"""A trained model with the documents that it read, its answers, and what explainers say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench import __version__
from bench.backends.runners import EagerRunner, load_models, make_runner
from bench.data.word_pieces import count_rows_with, structural_tokens
from bench.rationales.documents import Answer, Document, Precision, Reader, Values, answers, explanations
from bench.rationales.explanation_store import ExplanationStore
from bench.rationales.faithfulness import Eraser
from bench.registry import EXPLAINERS
from bench.store.artifacts import content_hash
from bench.store.folders import digest
from eraser_eval.align import Pooling

if TYPE_CHECKING:
    from bench.planning.plan import Arm, Plan
    from bench.progress import Watcher
    from bench.rationales.gold import Gold

KEPT = "kept"
"""The explainer that says in which layers AdapLeR keeps a token."""


@dataclass(frozen=True)
class ExplainedModel:
    """Documents as one model read them.

    Attributes:
        runner, reader: the model, and how it reads.
        documents: what it read.
        answers: its answer to each document.
        labels: the names of the classes.
        store: where its explanations are kept.
        precision: of gradients, and of answers to texts with tokens left out.
    """

    runner: EagerRunner
    reader: Reader
    documents: Sequence[Document]
    answers: Sequence[Answer]
    labels: Sequence[str]
    store: ExplanationStore
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
        """FLOPs of reading all documents."""
        return sum(answer.flops for answer in self.answers)

    @cached_property
    def eraser(self) -> Eraser:
        """The model as a reader of documents with tokens left out."""
        return Eraser(self.runner, self.reader, self.labels, self.precision, self.store.erased_answers(self.labels))


def read_documents(
    plan: Plan, arm: Arm, documents: Sequence[Document], gold: Gold, *, precision: Precision, fresh: bool
) -> ExplainedModel:
    """Read the documents by an arm's model as it runs, in float32.

    Args:
        plan, arm: the model.
        documents: the texts, those of `gold`.
        gold: what people marked.
        precision: of gradients, and of answers to texts with tokens left out.
        fresh: delete the explanations of the model that are stored.
    """
    runner = make_runner(plan, arm, load_models(plan, [arm]))
    cls, sep = plan.tokenizer("")["input_ids"]
    reader = Reader(cls, sep, plan.max_length, plan.task.windows)
    read = answers(runner, reader, [(document, None) for document in documents])
    store = store_of(plan, arm, gold, precision)
    if fresh:
        store.clear()
    return ExplainedModel(runner, reader, documents, read, plan.task.labels, store, precision)


def store_of(plan: Plan, arm: Arm, gold: Gold, precision: Precision) -> ExplanationStore:
    """Return where explanations of a trained model on these documents are kept."""
    return ExplanationStore(plan.settings.store / "explained" / f"{model_identity(plan, arm, gold)}-{precision}")


def model_identity(plan: Plan, arm: Arm, gold: Gold) -> str:
    """Return a hash of a trained model on marked documents."""
    weights = digest(plan.artifacts.folder(arm.job.id) / "model.safetensors")
    special = count_rows_with(structural_tokens(plan.tokenizer), [gold.documents.values()])
    reading = ["special tokens are text"] if special else []  # once they were read as the tokens
    return content_hash([__version__, arm.job.id, weights, dict(arm.knobs), gold.identity, *reading])


def token_scores(method: str, model: ExplainedModel, pooling: Pooling, *, watcher: Watcher) -> list[Values]:
    """Return each document's token scores [layers or 1, tokens], stored or computed.

    Where AdapLeR keeps no token in a layer, the scores are those of the layer before.
    """
    lengths = [len(document.tokens) for document in model.documents]
    return model.store.scores(f"{method}-{pooling}", lengths, lambda: compute_scores(method, model, pooling, watcher))


def compute_scores(method: str, model: ExplainedModel, pooling: Pooling, watcher: Watcher) -> list[Values]:
    """Compute what `token_scores` returns."""
    windows = sum(len(model.reader.split(document)) for document in model.documents)
    with watcher.counting_bar(f"explain {method}", windows) as advance:
        scores = explanations(
            EXPLAINERS[method],
            model.runner,
            model.reader,
            documents=model.documents,
            classes=model.classes,
            pooling=pooling,
            precision=model.precision,
            advance=advance,
        )
    if method != KEPT:
        for layers in scores:
            fill_empty_layers(layers)
    return scores


def fill_empty_layers(scores: Values) -> None:
    """Copy into each layer without a score [layers, tokens] those of the layer before, in place."""
    for layer in range(1, len(scores)):
        if not scores[layer].any():
            scores[layer] = scores[layer - 1]
