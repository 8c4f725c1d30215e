"""Documents as a model reads them: word pieces in windows, with every piece's token known.

A model sees at most `max_length` word pieces: a task with windows reads a document in several, and its answer is the
mean of their probabilities; other tasks read the beginning, as in training, and know nothing of the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError
from bench.finite import require_finite
from bench.gold import Gold, marked_tokens
from bench.layouts import quoted
from bench.windows import spans
from eraser_eval.align import Alignment, Pooling
from eraser_eval.documents import tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bench.evaluation import Runnable
    from efficient_bert import Batch
    from efficient_bert.explainers import Explainer

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]
Precision = Literal["no", "bf16"]
"""Of passes: float32, or bfloat16 under autocast."""

Places = Sequence[NDArray[np.int64]]
"""Per window, which pieces of the document it holds."""

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
    """Every annotation's document, cut into word pieces."""
    found = []
    for annotation in gold.annotations:
        (docid,) = annotation.docids
        words = tokens(gold.documents[docid])
        pieces = tokenizer(words, is_split_into_words=True, add_special_tokens=False, verbose=False)
        if not pieces["input_ids"]:
            raise InputError(
                f"the document of annotation {quoted(annotation.annotation_id, repr)} has no word pieces for this "
                f"backbone, but a rationale needs words; remove the annotation or fill the document in"
            )
        found.append(
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
    return found


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

    def places(self, document: Document, keep: Mask | None = None) -> Places:
        """The pieces that each window holds, of all tokens or of those where `keep` [tokens] is true.

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
        """The windows as word piece ids with [CLS] and [SEP]."""
        return [self.input_ids(document, own) for own in self.places(document, keep)]

    def input_ids(self, document: Document, own: NDArray[np.int64]) -> list[int]:
        """One window that holds these pieces."""
        return [self.cls, *document.pieces[own].tolist(), self.sep]


@dataclass(frozen=True)
class Answer:
    """What a model says of a document: class probabilities [C], the mean over its windows, and what they cost."""

    probabilities: Values
    flops: int


def answers(
    able: Runnable, reader: Reader, asked: Sequence[tuple[Document, Mask | None]], *, precision: Precision = "no"
) -> list[Answer]:
    """The answers to documents, or to what `keep` leaves of them."""
    import torch

    from efficient_bert import run
    from efficient_bert.cost import trace_flops

    cut = [reader.inputs(document, keep) for document, keep in asked]
    flat = [window for windows in cut for window in windows]
    names = [document.annotation_id for (document, _), windows in zip(asked, cut, strict=True) for _ in windows]
    found, flops = [np.empty(0)] * len(flat), np.zeros(len(flat), np.int64)
    for rows, batch in _batches(flat, able):
        with torch.inference_mode(), _under(precision, able):
            output = run(able.model, batch, able.policy)
        require_finite(output.logits, [names[row] for row in rows])
        flops[rows] = trace_flops(output.trace, able.model.config).cpu().numpy()
        for row, probabilities in zip(rows, output.logits.double().softmax(-1).cpu().numpy(), strict=True):
            found[row] = probabilities
    ends = np.cumsum([len(windows) for windows in cut])[:-1]
    parts = zip(np.split(np.stack(found), ends), np.split(flops, ends), strict=True)
    return [Answer(np.mean(own, axis=0), int(spent.sum())) for own, spent in parts]


def explanations(
    explainer: Explainer,
    able: Runnable,
    reader: Reader,
    *,
    documents: Sequence[Document],
    classes: Sequence[int],
    pooling: Pooling,
    precision: Precision = "no",
    advance: Callable[[int], None] = lambda windows: None,
) -> list[Values]:
    """Each document's token scores [layers or 1, tokens]; 0 for tokens that the model did not see.

    Args:
        explainer: what scores word pieces.
        able: the model that is explained.
        reader: how it reads.
        documents: what is explained.
        classes: the answer that is explained, of each document.
        pooling: from word pieces to tokens.
        precision: of an explainer that reads gradients; others need the digits.
        advance: called with the number of finished windows.
    """
    places = [reader.places(document) for document in documents]
    cut = [
        Window(
            reader.input_ids(document, own),
            answer,
            document.marked[document.units[own]],
            # [CLS] and [SEP] counted, once for the document
            (own + 1) / (sum(map(len, windows)) + 2),
            document.annotation_id,
        )
        for document, answer, windows in zip(documents, classes, places, strict=True)
        for own in windows
    ]
    with _under(precision if explainer.gradients else "no", able):
        flat = iter(_explained(explainer, able, cut, advance))
    return [
        _merged(document, list(itertools.islice(flat, len(own))), own, pooling=pooling)
        for document, own in zip(documents, places, strict=True)
    ]


@dataclass(frozen=True)
class Window:
    """What is explained at once.

    Attributes:
        pieces: word piece ids with [CLS] and [SEP].
        answer: the class that is explained.
        marked: which pieces people marked [pieces without the special ones].
        before: how much of what is read of the document stands before each piece [the same].
        name: the annotation's.
    """

    pieces: list[int]
    answer: int
    marked: Mask
    before: Values
    name: str


def _explained(
    explainer: Explainer,
    able: Runnable,
    windows: Sequence[Window],
    advance: Callable[[int], None],
) -> list[Values]:
    """Scores [layers or 1, pieces] of the pieces of each window, special tokens left out."""
    import torch

    from efficient_bert.explainers import Question

    found: list[Values] = [np.empty(0)] * len(windows)
    for rows, batch in _batches([window.pieces for window in windows], able):
        answers = torch.tensor([windows[row].answer for row in rows], device=batch.mask.device)
        marked, before = torch.zeros_like(batch.mask), torch.zeros(batch.mask.shape, device=batch.mask.device)
        for place, row in enumerate(rows):
            own = slice(1, 1 + len(windows[row].marked))
            marked[place, own] = torch.from_numpy(windows[row].marked)
            before[place, own] = torch.from_numpy(windows[row].before).to(before)
        question = Question(able.model, batch, answers, marked, before, able.policy if explainer.adaptive else None)
        scores = explainer.explain(question).double().cpu()
        for row, padded in zip(rows, scores, strict=True):
            length = len(windows[row].pieces)
            require_finite(padded[None, :, :length], [windows[row].name], kind="explanation of")
            own = padded.numpy()
            # shares are held against an equal share, which is smaller in a longer window
            found[row] = own[:, 1 : length - 1] * (length if explainer.shares else 1)
        advance(len(rows))
    return found


def _under(precision: Precision, able: Runnable) -> AbstractContextManager[object]:
    """Passes of the model in this precision."""
    import torch

    return torch.autocast(able.model.device.type, torch.bfloat16, enabled=precision == "bf16")


def _merged(document: Document, windows: Sequence[Values], places: Places, *, pooling: Pooling) -> Values:
    """Of windows' pieces, the document's tokens; pieces that were not read take no part."""
    units = Alignment(document.units[np.concatenate(places)], len(document.tokens))
    layers = np.concatenate(windows, axis=1)
    return np.stack([units.pool(values, how=pooling) for values in layers])


def _batches(windows: Sequence[list[int]], able: Runnable) -> Iterator[tuple[list[int], Batch]]:
    """(numbers of the windows, batch) of windows of like length together."""
    from efficient_bert import Batch
    from efficient_bert.training.batches import collate

    order = sorted(range(len(windows)), key=lambda row: len(windows[row]))
    while order:
        longest = len(windows[order[-1]])
        rows = order[-max(1, BATCH_TOKENS // longest) :]
        del order[-len(rows) :]
        own: list[dict[str, Any]] = [
            {"input_ids": windows[row], "token_type_ids": [0] * len(windows[row]), "label": 0} for row in rows
        ]
        inputs = collate(own, pad_token_id=able.model.config.padding)
        yield rows, Batch.of({name: value.to(able.device) for name, value in inputs.items()})
