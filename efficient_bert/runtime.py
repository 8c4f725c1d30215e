"""Run an exported model: one file, which needs onnxruntime, tokenizers and numpy alone, and lies in every export.

    model = load("exported")
    answer = model("a fine film")            # or model(("a premise", "a hypothesis"))
    answer.label, answer.probabilities, answer.tokens

One unpadded example runs at a time; `Model.batch` runs several at once.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

FORMAT = 1
"""Version of the folder's layout that this file reads."""

MANIFEST, GRAPH, TOKENIZER = "manifest.json", "model.onnx", "tokenizer.json"
FIELDS = ("format", "labels", "regression", "pair", "windows", "max_length", "order", "layers", "digests", "opset")
SEAL = "seal"

Text = str | tuple[str, str]


class ExportError(ValueError):
    """An exported folder or a text cannot be used: the message says what, and the remedy, in one line."""


@dataclass(frozen=True)
class Answer:
    """The answer to one text, and what ran for it.

    Attributes:
        label: the most probable class; None in a regression.
        score: the score in a regression; None in a classification.
        probabilities: class -> probability; empty in a regression.
        logits: (C,) float32, of a text in windows the mean.
        tokens: word pieces that each of the model's N layers ran on; 0 where it did not run.
        widths: attention heads of each layer; 0 where it did not run.
        layers: layers that ran.
        kept: for each of the N layers the positions of the word pieces that it ran on.
        windows: the answers to the parts of a text that was read in windows; of these `tokens` is the sum, `widths` and
            `layers` are the largest, and `kept` is empty.
    """

    label: str | None
    score: float | None
    probabilities: Mapping[str, float]
    logits: NDArray[np.float32]
    tokens: tuple[int, ...]
    widths: tuple[int, ...]
    layers: int
    kept: tuple[tuple[int, ...], ...]
    windows: tuple[Answer, ...] = ()


def load(folder: str | Path = Path(__file__).parent, *, threads: int = 1) -> Model:
    """Load an exported folder.

    Args:
        folder: that of this file where none is given, as every export holds one.
        threads: that one example runs on.

    Raises:
        ExportError: it is no such folder, is damaged, or was made for another version.
    """
    folder = Path(folder)
    if threads < 1:
        raise ExportError(f"threads is {threads}, but an example runs on 1 or more")
    manifest = read_manifest(folder)
    check_digests(folder, manifest["digests"])
    try:
        session = open_session(folder / GRAPH, threads=threads)
    except Exception as error:  # onnxruntime raises classes of its own
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} cannot run {folder / GRAPH} (opset {manifest['opset']}, made with "
            f"onnxruntime {manifest.get('onnxruntime')}): {reason}; install that version"
        ) from error
    return Model(session, Tokenizer.from_file(str(folder / TOKENIZER)), manifest)


def open_session(graph: Path | bytes, *, threads: int) -> onnxruntime.InferenceSession:
    """Open a session on a graph: a file, or its content."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # lengths differ between examples
    options.log_severity_level = 3
    content = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def arrays(ids: Sequence[int], types: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """Make the graph's inputs of an example's word pieces and segments."""
    return {"input_ids": np.array(ids, np.int64), "token_type_ids": np.array(types, np.int64)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what an exported folder says of itself.

    Raises:
        ExportError: it is not there, damaged, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ExportError(f"{folder} holds no {MANIFEST}; give a folder that bench export wrote")
    try:
        manifest = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ExportError(f"{path} is damaged: it is no JSON; export the model again") from error
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise ExportError(f"{path} is not that of an exported model; give a folder that bench export wrote")
    if manifest["format"] != FORMAT:
        raise ExportError(
            f"{path} has format {manifest['format']!r}, but this runtime reads format {FORMAT}; use the runtime.py "
            "in that folder"
        )
    if seal_of(manifest) != manifest.get(SEAL) or any(name not in manifest for name in FIELDS):
        raise ExportError(f"{path} is damaged: its content is not what its seal is of; export the model again")
    return manifest


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of what a manifest says, but for its seal."""
    said = {name: value for name, value in manifest.items() if name != SEAL}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise ExportError where a file is missing or is not what its digest is of."""
    for name, known in digests.items():
        path = folder / name
        if not path.is_file():
            raise ExportError(f"{path} is missing; copy the whole folder, or export the model again")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known:
                raise ExportError(
                    f"{path} is damaged: its content is not what its digest is of; export the model again"
                )


class Model:
    """An exported model, ready to answer.

    Attributes:
        manifest: what the folder says of itself: method, knobs, labels, precision.
    """

    def __init__(self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self._session = session
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # in a text the name of a special token is text
        tokenizer.no_padding()
        if manifest["windows"]:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(manifest["max_length"], strategy="longest_first")

    @property
    def threads(self) -> int:
        """Threads that one example runs on, as the session has them."""
        return int(self._session.get_session_options().intra_op_num_threads)

    def __call__(self, text: Text) -> Answer:
        """Answer one text, or one pair of texts.

        Raises:
            ExportError: it is neither, or not what the model was trained on.
        """
        answers = tuple(self.run(ids, types) for ids, types in self.encode(text))
        return answers[0] if len(answers) == 1 else self._together(answers)

    def batch(self, texts: Sequence[Text], *, workers: int = 1) -> list[Answer]:
        """Answer several texts, `workers` at once, in their order.

        All use one session, which runs in the calling thread; give it one thread where there are many workers.

        Raises:
            ExportError: as a single text.
        """
        if workers < 1:
            raise ExportError(f"workers is {workers}, but examples need 1 or more")
        if workers == 1:
            return [self(text) for text in texts]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(self, texts))

    def encode(self, text: Text) -> list[tuple[list[int], list[int]]]:
        """Cut a text into word pieces: their ids and segments, of each window where the model reads windows.

        Raises:
            ExportError: as `__call__`.
        """
        pair = not isinstance(text, str)
        if pair and not (isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)):
            raise ExportError(f"an example is a text or a pair (text, text), but this is {type(text).__name__}")
        if self.manifest["pair"] not in (None, pair):
            wanted = "pairs (text, text)" if self.manifest["pair"] else "single texts"
            raise ExportError(f"the model was trained on {wanted}; give one of these")
        if self.manifest["windows"] and isinstance(text, str):
            return list(self._windows(text))
        encoding: Encoding = self._tokenizer.encode(*text) if isinstance(text, tuple) else self._tokenizer.encode(text)
        return [(encoding.ids, encoding.type_ids)]

    def run(self, ids: Sequence[int], types: Sequence[int]) -> Answer:
        """Answer one example of word pieces and segments, [CLS] and [SEP] included."""
        logits, kept, tokens, heads = self._session.run(["logits", "kept", "tokens", "heads"], arrays(ids, types))
        order, total = self.manifest["order"], self.manifest["layers"]
        ran = dict(zip(order, range(len(tokens)), strict=False))
        parts = np.split(kept, np.cumsum(tokens)[:-1]) if len(tokens) else []
        positions = [tuple(parts[ran[layer]].tolist()) if layer in ran else () for layer in range(total)]
        widths = tuple(int(heads[ran[layer]]) if layer in ran else 0 for layer in range(total))
        label, score, probabilities = self._reading(softmax(logits[0]), logits[0])
        counts = tuple(map(len, positions))
        return Answer(label, score, probabilities, logits[0], counts, widths, len(ran), tuple(positions))

    def _reading(
        self, shares: NDArray[np.float64], logits: NDArray[np.float32]
    ) -> tuple[str | None, float | None, dict[str, float]]:
        """Return label, score and probabilities."""
        if self.manifest["regression"]:
            return None, float(logits[0]), {}
        probabilities = dict(zip(self.manifest["labels"], shares.tolist(), strict=True))
        return self.manifest["labels"][int(shares.argmax())], None, probabilities

    def _together(self, answers: tuple[Answer, ...]) -> Answer:
        """Join the answers to a text's windows: the mean of their probabilities, or of their scores."""
        logits = np.mean([each.logits for each in answers], axis=0)
        shares = np.mean([list(each.probabilities.values()) for each in answers], axis=0)
        return Answer(
            *self._reading(shares, logits),
            logits,
            tuple(map(sum, zip(*(each.tokens for each in answers), strict=True))),
            tuple(map(max, zip(*(each.widths for each in answers), strict=True))),
            max(each.layers for each in answers),
            (),
            answers,
        )

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """Cut a text into windows of whole words that follow one another."""
        first, last = self._tokenizer.encode("").ids
        encoding = self._tokenizer.encode(text.split(), is_pretokenized=True, add_special_tokens=False)
        for start, end in spans([word or 0 for word in encoding.word_ids], self.manifest["max_length"] - 2):
            ids = [first, *encoding.ids[start:end], last]
            yield ids, [0] * len(ids)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute probabilities of logits (C,)."""
    powers: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def spans(words: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Return half-open runs of at most `room` word pieces, of whole words; a longer word is cut.

    Args:
        words: the word of each piece, rising.
    """
    runs, start = [], 0
    while start < len(words):
        end = min(start + room, len(words))
        if end < len(words):
            word = bisect_left(words, words[end])  # where the word begins that would be cut, or the next one
            end = word if word > start else end
        runs.append((start, end))
        start = end
    return runs or [(0, 0)]
