"""Documents as a model reads them: word pieces in windows, with the token of every piece known.

A model sees at most `max_length` word pieces. A task with windows reads a document in several, and its answer is the
mean of their probabilities. Other tasks read the beginning, as in training, and know nothing of the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.finite import require_finite
from bench.data.layouts import quote
from bench.data.windows import spans
from bench.errors import InputError
from bench.rationales.gold import Gold, marked_tokens
from eraser_eval.align import Alignment, Pooling
from eraser_eval.formats.documents import tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bench.backends.runners import EagerRunner, Runner
    from efficient_bert import Batch
    from efficient_bert.explainers import Explainer, Question

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]
Precision = Literal["no", "bf16"]
"""Precision of passes: float32, or bfloat16 under autocast."""

PieceNumbers = NDArray[np.int64]
"""Which pieces of a document a window holds, counted from 0."""

BATCH_TOKENS = 4096
"""Word pieces with padding in a batch: 8 windows of 512, whose attention probabilities fill half a gigabyte."""


@dataclass(frozen=True)
class Document:
    """One annotated document.

    Attributes:
        annotation_id, docid: its names.
        label: the gold class.
        tokens: as ERASER counts them.
        pieces: word piece ids of all tokens [pieces].
        units: the token of each piece [pieces], rising.
        marked: which tokens people marked [tokens].
    """

    annotation_id: str
    docid: str
    label: str
    tokens: tuple[str, ...]
    pieces: NDArray[np.int64]
    units: NDArray[np.int64]
    marked: Mask


def documents_of(gold: Gold, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    """Cut the document of every annotation into word pieces.

    Raises:
        InputError: a document has none.
    """
    documents = []
    for annotation in gold.annotations:
        (docid,) = annotation.docids
        words = tokens(gold.documents[docid])
        pieces = tokenizer(words, is_split_into_words=True, add_special_tokens=False, verbose=False)
        if not pieces["input_ids"]:
            raise InputError(
                f"the document of annotation {quote(annotation.annotation_id, repr)} has no word pieces for this "
                f"backbone, but a rationale needs words; remove the annotation or fill the document in"
            )
        documents.append(
            Document(
                annotation.annotation_id,
                docid,
                annotation.classification,
                tuple(words),
                np.array(pieces["input_ids"], np.int64),
                np.array(pieces.word_ids(0), np.int64),
                marked_tokens(annotation, len(words)),
            )
        )
    return documents


@dataclass(frozen=True)
class Reader:
    """How documents become inputs.

    Attributes:
        cls, sep: ids of the special tokens.
        max_length: word pieces of a window, with them.
        windows: whether a document is read in several.
    """

    cls: int
    sep: int
    max_length: int
    windows: bool

    def split(self, document: Document, keep: Mask | None = None) -> list[PieceNumbers]:
        """Return the pieces that each window holds, of all tokens or of those where `keep` [tokens] is true.

        Without windows what lies beyond the first one stays unread, however few tokens are kept.
        """
        room = self.max_length - 2
        left = np.arange(len(document.pieces))[: None if self.windows else room]
        if keep is not None:
            left = left[keep[document.units[left]]]
        if not self.windows:
            return [left]
        return [left[start:end] for start, end in spans(document.units[left].tolist(), room)]

    def inputs(self, document: Document, keep: Mask | None = None) -> list[list[int]]:
        """Return the windows as word piece ids with [CLS] and [SEP]."""
        return [self.input_ids(document, pieces) for pieces in self.split(document, keep)]

    def input_ids(self, document: Document, pieces: PieceNumbers) -> list[int]:
        """Return one window that holds these pieces."""
        return [self.cls, *document.pieces[pieces].tolist(), self.sep]


@dataclass(frozen=True)
class Answer:
    """A model's class probabilities of a document [C], the mean over its windows, and the FLOPs of all of them."""

    probabilities: Values
    flops: int


def answers(
    runner: Runner, reader: Reader, texts: Sequence[tuple[Document, Mask | None]], *, precision: Precision = "no"
) -> list[Answer]:
    """Return the answers to documents, or to what a mask [tokens] keeps of them."""
    windows_of_texts = [reader.inputs(document, keep) for document, keep in texts]
    windows = list(itertools.chain.from_iterable(windows_of_texts))
    counts = [len(inputs) for inputs in windows_of_texts]
    names = [document.annotation_id for (document, _), count in zip(texts, counts, strict=True) for _ in range(count)]
    probabilities, flops = [np.empty(0)] * len(windows), np.zeros(len(windows), np.int64)
    for rows, batch in _batches(windows, runner):
        with _autocast(precision, batch.mask.device):
            output = runner(batch)
        require_finite(output.logits, [names[row] for row in rows])
        flops[rows] = runner.flops(output)[0].cpu().numpy()
        for row, shares in zip(rows, output.logits.double().softmax(-1).cpu().numpy(), strict=True):
            probabilities[row] = shares
    ends = np.cumsum(counts)[:-1]
    parts = zip(np.split(np.stack(probabilities), ends), np.split(flops, ends), strict=True)
    return [Answer(np.mean(shares, axis=0), int(spent.sum())) for shares, spent in parts]


def explanations(
    explainer: Explainer,
    runner: EagerRunner,
    reader: Reader,
    *,
    documents: Sequence[Document],
    classes: Sequence[int],
    pooling: Pooling,
    precision: Precision = "no",
    advance: Callable[[int], None] = lambda windows: None,
) -> list[Values]:
    """Return each document's token scores [layers or 1, tokens]; 0 for tokens that the model did not see.

    Args:
        explainer: scores word pieces.
        runner: the model that is explained.
        reader: how it reads.
        documents: the texts to explain.
        classes: the answer that is explained, of each document.
        pooling: from word pieces to tokens.
        precision: of an explainer that reads gradients; others need the digits.
        advance: called with the number of finished windows.
    """
    splits = [reader.split(document) for document in documents]
    windows = [
        window
        for document, answer, pieces in zip(documents, classes, splits, strict=True)
        for window in _windows(document, reader, answer, pieces)
    ]
    with _autocast(precision if explainer.gradients else "no", runner.model.device):
        scores = iter(_piece_scores(explainer, runner, windows, advance))
    return [
        _token_scores(document, list(itertools.islice(scores, len(pieces))), pieces, pooling=pooling)
        for document, pieces in zip(documents, splits, strict=True)
    ]


@dataclass(frozen=True)
class Window:
    """A part of a document that is explained at once.

    Attributes:
        pieces: word piece ids with [CLS] and [SEP].
        answer: the class that is explained.
        marked: which pieces people marked [pieces without the special ones].
        before: the share of the pieces read of the document that stand before each piece [the same].
        name: the annotation's.
    """

    pieces: list[int]
    answer: int
    marked: Mask
    before: Values
    name: str


def _windows(document: Document, reader: Reader, answer: int, split: Sequence[PieceNumbers]) -> Iterator[Window]:
    read = sum(map(len, split)) + 2  # [CLS] and [SEP] counted, once for the document
    for pieces in split:
        yield Window(
            reader.input_ids(document, pieces),
            answer,
            document.marked[document.units[pieces]],
            (pieces + 1) / read,
            document.annotation_id,
        )


def _piece_scores(
    explainer: Explainer, runner: EagerRunner, windows: Sequence[Window], advance: Callable[[int], None]
) -> list[Values]:
    """Return the scores [layers or 1, pieces] of each window, special tokens left out."""
    results: list[Values] = [np.empty(0)] * len(windows)
    for rows, batch in _batches([window.pieces for window in windows], runner):
        chosen = [windows[row] for row in rows]
        scores = explainer.explain(_question(explainer, runner, chosen, batch)).double().cpu()
        for row, window, padded in zip(rows, chosen, scores, strict=True):
            length = len(window.pieces)
            require_finite(padded[None, :, :length], [window.name], kind="explanation of")
            # shares are held against an equal share, which is smaller in a longer window
            results[row] = padded.numpy()[:, 1 : length - 1] * (length if explainer.shares else 1)
        advance(len(rows))
    return results


def _question(explainer: Explainer, runner: EagerRunner, windows: Sequence[Window], batch: Batch) -> Question:
    """Return what an explainer is asked about a batch of windows."""
    import torch

    from efficient_bert.explainers import Question

    device = batch.mask.device
    classes = torch.tensor([window.answer for window in windows], device=device)
    marked, before = torch.zeros_like(batch.mask), torch.zeros(batch.mask.shape, device=device)
    for row, window in enumerate(windows):
        inside = slice(1, 1 + len(window.marked))
        marked[row, inside] = torch.from_numpy(window.marked)
        before[row, inside] = torch.from_numpy(window.before).to(before)
    return Question(runner.model, batch, classes, marked, before, runner.policy if explainer.adaptive else None)


def _autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _token_scores(
    document: Document, windows: Sequence[Values], split: Sequence[PieceNumbers], *, pooling: Pooling
) -> Values:
    """Pool the scores of pieces to those of the document's tokens; pieces that were not read take no part."""
    units = Alignment(document.units[np.concatenate(split)], len(document.tokens))
    layers = np.concatenate(windows, axis=1)
    return np.stack([units.pool(values, how=pooling) for values in layers])


def _batches(windows: Sequence[list[int]], runner: Runner) -> Iterator[tuple[list[int], Batch]]:
    """Yield (numbers of the windows, batch), windows of similar length together."""
    order = sorted(range(len(windows)), key=lambda row: len(windows[row]))
    while order:
        longest = len(windows[order[-1]])
        rows = order[-max(1, BATCH_TOKENS // longest) :]
        del order[-len(rows) :]
        examples = [{"input_ids": windows[row], "token_type_ids": [0] * len(windows[row])} for row in rows]
        yield rows, runner.prepare(examples)
