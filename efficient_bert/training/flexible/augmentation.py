"""More training rows by replacing words (TinyBERT, Jiao et al., 2020, algorithm 1), as word pieces.

A word of one piece is replaced by what a masked language model expects at its position, beside the unmasked text; a
word of several pieces by its nearest neighbours among word vectors, where there are any. The rows are kept in shards,
so that a killed stage resumes, and get the answers of the fine-tuned model as labels.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import run
from efficient_bert.errors import InputError
from efficient_bert.files import read_table, write_tables
from efficient_bert.knobs import Knob, Values
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import Rows, chunks
from efficient_bert.training import Context
from efficient_bert.training.flexible.thesaurus import Choice, Thesaurus

FILE = "augmented.parquet"
SHARD = 256
"""Rows that are augmented and stored together."""

SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("token_type_ids", pa.list_(pa.int8())),
        ("label", pa.float64()),
    ]
)

OPTIONS = (
    Knob("augment_copies", "copies of each row with other words; 0 = none (TinyBERT takes 10 to 30)", 0, low=0),
    Knob("augment_model", "masked language model with the backbone's vocabulary and safetensors weights, a folder or a"
         " hub's name", "", path=True),
    Knob("augment_vectors", "file of word vectors, a word and its numbers on each line; none = words of several pieces"
         " stay", "", path=True),
    Knob("augment_candidates", "words that may replace a word", 15, low=1),
    Knob("augment_chance", "probability of each word's replacement", 0.4, low=0.0, high=1.0),
)  # fmt: skip


def variants(
    row: Mapping[str, Any], choices: Sequence[Choice], *, copies: int, chance: float, longest: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the row with other words, `copies` times, but no copy of more than `longest` pieces.

    The same row and seed give the same copies, whatever else is augmented.
    """
    draw = random.Random(f"{seed} {row['example_id']}")  # noqa: S311 - a draw, no secret
    ids, types = list(row["input_ids"]), list(row["token_type_ids"])
    for copy in range(copies):
        new: dict[str, list[int]] = {"input_ids": [], "token_type_ids": []}
        after = 0
        for start, end, candidates in choices:
            taken = list(draw.choice(candidates)) if draw.random() < chance else ids[start:end]
            new["input_ids"] += ids[after:start] + taken
            new["token_type_ids"] += types[after:start] + types[start : start + 1] * len(taken)
            after = end
        new["input_ids"] += ids[after:]
        new["token_type_ids"] += types[after:]
        if len(new["input_ids"]) <= longest:
            yield {"example_id": f"{row['example_id']}~{copy}", **new}


def augment(context: Context) -> Path | None:
    """Write the augmented rows of a stage shard by shard and return their file; None where no copies are wanted.

    No two rows have the same word pieces, and none those of a training row.

    Raises:
        InputError: no masked language model, one of another vocabulary, or no such vectors file, or a malformed one.
    """
    if not context.options["augment_copies"]:
        return None
    path, state = context.folder / FILE, PartialState(cpu=context.device == "cpu")
    if read_table(path, SCHEMA) is not None:
        return path
    context.folder.mkdir(parents=True, exist_ok=True)
    longest = max(len(row["input_ids"]) for row in context.train)
    thesaurus, shards = thesaurus_of(context, longest), []
    teacher = torch.nn.Module.to(context.model, state.device)
    for number, rows in enumerate(chunks(context.train, SHARD)):
        shards.append(context.folder / f"augmented-{number:05d}.parquet")
        if number % state.num_processes == state.process_index and read_table(shards[-1], SCHEMA) is None:
            made = shard_of(rows, thesaurus, teacher, context, longest=longest)
            write_tables(shards[-1], SCHEMA, [pa.Table.from_pylist(made, SCHEMA)])
    state.wait_for_everyone()
    if state.is_main_process:
        write_tables(path, SCHEMA, distinct_rows(context.train, shards))
    state.wait_for_everyone()
    return path


def shard_of(
    rows: Rows,
    thesaurus: Thesaurus,
    teacher: EfficientBertForSequenceClassification,
    context: Context,
    *,
    longest: int,
) -> list[dict[str, Any]]:
    """Make the copies of some rows that are no longer than `longest`, labelled by the teacher."""
    options = context.options
    made = [
        copy
        for row, choices in zip(rows, thesaurus.choices([row["input_ids"] for row in rows]), strict=True)
        for copy in variants(
            row,
            choices,
            copies=options["augment_copies"],
            chance=options["augment_chance"],
            longest=longest,
            seed=context.seed,
        )
    ]
    labels = [label for chunk in chunks(made) for label in teacher_labels(teacher, chunk)]
    return [{**row, "label": label} for row, label in zip(made, labels, strict=True)]


@torch.inference_mode()
def teacher_labels(teacher: EfficientBertForSequenceClassification, rows: Rows) -> list[float]:
    """Return the teacher's class, or in a regression its score, for each row."""
    batch = Batch.of_rows(rows, pad_token_id=teacher.config.padding, device=teacher.device)
    logits = run(teacher, batch).logits.float()
    labels: list[float] = (logits[:, 0] if teacher.config.regression else logits.argmax(1)).tolist()
    return labels


def distinct_rows(train: Rows, shards: Sequence[Path]) -> Iterator[pa.Table]:
    """Yield the shards' rows whose word pieces neither a training row nor an earlier row has."""
    seen = {digest(row["input_ids"]) for row in train}
    for shard in shards:
        table = pq.read_table(shard, schema=SCHEMA)
        fresh = []
        for row_digest in map(digest, table["input_ids"].to_pylist()):
            fresh.append(row_digest not in seen)
            seen.add(row_digest)
        yield table.filter(pa.array(fresh, pa.bool_()))


def digest(ids: Sequence[int]) -> bytes:
    """Hash a row's word pieces to sixteen bytes, of which millions fit into memory."""
    return hashlib.blake2b(array("l", ids).tobytes(), digest_size=16).digest()


def check_sources(config: EfficientBertConfig, options: Values, vocabulary: Mapping[str, int]) -> None:
    """Raise InputError where copies are wanted, but their words cannot come from where the options say.

    The masked language model's word pieces are read, which must be the backbone's; its weights are not.
    """
    name, vectors = options["augment_model"], options["augment_vectors"]
    if not options["augment_copies"]:
        return
    if not name:
        raise InputError("augment_copies needs a masked language model; give augment_model a folder or a hub's name")
    if vectors and not Path(vectors).is_file():
        raise InputError(f"augment_vectors is {vectors!r}, which is no file; give lines of a word and its numbers")
    words = tokenizer_of(name)
    pieces = words.get_vocab()
    if words.mask_token is None:
        raise InputError(f"augment_model {name!r} has no [MASK] to stand for a word; give a masked language model")
    if pieces != vocabulary:
        shared = len(pieces.items() & vocabulary.items())
        raise InputError(
            f"augment_model {name!r} shares {shared} of its {len(pieces)} word pieces and their ids with the "
            f"{len(vocabulary)} of the backbone; give a masked language model of the same vocabulary"
        )


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a masked language model, once; a "[SEP]" in a text is no special piece to it.

    The name is a folder or a hub's name.
    """
    tokenizer: PreTrainedTokenizerBase = load_pretrained(AutoTokenizer, name, split_special_tokens=True)
    return tokenizer


def load_pretrained(kind: Any, name: str, **options: Any) -> Any:
    """Load what an Auto class finds under a name.

    Raises:
        InputError: nothing, or something else.
    """
    try:
        return kind.from_pretrained(name, **options)
    except Exception as error:  # whatever a foreign file makes these libraries raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"augment_model {name!r} cannot be read as a masked language model: {reason}") from error


def thesaurus_of(context: Context, longest: int) -> Thesaurus:
    """Load the masked language model and the vectors that the options name, for rows of at most `longest` pieces."""
    check_sources(context.model.config, context.options, context.vocabulary)
    name, vectors = context.options["augment_model"], context.options["augment_vectors"]
    model, report = load_pretrained(AutoModelForMaskedLM, name, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:
        raise InputError(
            f"augment_model {name!r} is no masked language model: its weights lack {min(report['missing_keys'])}; give "
            "one that was trained to fill in words"
        )
    most = model.config.max_position_embeddings
    if longest > most:
        raise InputError(
            f"augment_model {name!r} reads {most} word pieces, but a training row has {longest}; give another one or a "
            "smaller max_length"
        )
    model.eval()
    model.to(PartialState(cpu=context.device == "cpu").device)
    words, vectors_file = tokenizer_of(name), Path(vectors) if vectors else None
    return Thesaurus(words, model, vectors_file, context.options["augment_candidates"])


def with_augmented(rows: Rows, path: Path | None) -> Rows:
    """Append the rows of a file of augmented ones, where there is one."""
    if path is None or not path.exists():
        return rows
    table = read_table(path, SCHEMA)
    if table is None:
        raise InputError(f"{path} is damaged; train the stage that wrote it again, with --fresh")
    return ExtendedRows(rows, table.combine_chunks())


class ExtendedRows(Sequence[Mapping[str, Any]]):
    """Rows, and behind them those of a table, which stay as small as they lie there until one is asked for."""

    def __init__(self, rows: Rows, table: pa.Table) -> None:
        self.rows, self.table = rows, table
        self.integer_labels = isinstance(rows[0]["label"], int)

    def __len__(self) -> int:
        return len(self.rows) + len(self.table)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Mapping[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number < len(self.rows):
            return self.rows[number]
        (row,) = self.table.slice(number - len(self.rows), 1).to_pylist()
        return {**row, "label": int(row["label"]) if self.integer_labels else row["label"]}
