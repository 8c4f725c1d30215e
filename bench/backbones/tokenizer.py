"""The tokenizer of a foreign BERT: whether it is BERT's, whole, and the one that belongs to the table of embeddings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.backbones.config import Fields, is_off
from bench.backbones.files import AGAIN, is_there, json_object, one_line, require_file, show_value
from bench.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAVE = "save BERT's tokenizer there, with BertTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
RESIZE = "give the tokenizer that the model was trained with, or model.resize_token_embeddings(len(tokenizer)) and save"
PADDED = (8, 16, 32, 64, 128)
"""Multiples to which tables of embeddings are filled up: the last rows then belong to no word piece."""

SPECIAL = ("cls", "sep", "pad", "unk")
CASED = 0.05
"""The share of word pieces that lower case makes unreachable, from which on a vocabulary is taken for a cased one."""


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the fast tokenizer of a folder from its files alone; no code of the folder is run.

    Raises:
        InputError: the folder's tokenizer files do not make BERT's fast tokenizer.
    """
    from transformers import AutoTokenizer

    check_files(folder)
    try:
        loaded = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, split_special_tokens=True
        )
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # whatever a foreign file makes these libraries raise, Rust's panics among them
        raise InputError(f"{one_line(error)}; {SAVE}") from error
    if not loaded.is_fast:
        raise InputError("it is no fast one; add its tokenizer.json")
    model = json.loads(loaded.backend_tokenizer.to_str())["model"]
    if model.get("type") != "WordPiece" or model.get("continuing_subword_prefix") != "##":
        raise InputError(
            f"it is of kind {show_value(model.get('type'))}, but BERT's makes word pieces "
            f"(WordPiece, whose pieces inside of a word begin with ##); {SAVE}"
        )
    return loaded


def check_files(folder: Path) -> None:
    """Raise InputError where a tokenizer file cannot be read, asks for code, or contradicts another."""
    present = [path for path in tokenizer_files(folder) if is_there(path)]
    for path in present:
        require_file(path)
    contents = {path.name: json_object(path) for path in present if path.suffix == ".json"}
    if not is_off(contents.get("tokenizer_config.json", {}).get("auto_map")):
        raise InputError(f"it is code (auto_map in tokenizer_config.json), which is never run; {SAVE}")
    if (folder / "vocab.txt") in present:
        check_vocabulary(folder / "vocab.txt", contents.get("tokenizer.json"))


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that decide how texts are cut and numbered, whether they are there or not."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json", "special_tokens_map.json")
    return [folder / name for name in names]


def check_vocabulary(path: Path, beside: Mapping[str, Any] | None) -> None:
    """Raise InputError where vocab.txt repeats a piece, or numbers pieces otherwise than the tokenizer.json beside."""
    pieces = lines_of(path)
    (piece, count), *_ = Counter(pieces).most_common(1) or [("", 0)]
    if count > 1:
        line = [number for number, other in enumerate(pieces, 1) if other == piece][1]
        raise InputError(
            f"{path}, line {line}: {show_value(piece)} is there {count} times, but a piece has one number; {AGAIN}"
        )
    numbers = piece_numbers(beside)
    for number, piece in enumerate(pieces):
        if numbers and numbers.get(piece) != number:
            raise InputError(
                f"{path}, line {number + 1}: {show_value(piece)} has number {number}, but "
                f"{show_value(numbers.get(piece))} in tokenizer.json; keep the file that belongs to the weights, "
                "and remove the other"
            )


def lines_of(path: Path) -> list[str]:
    """Read the pieces of a vocab.txt, as transformers reads them.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf8").removesuffix("\n").split("\n")
    except ValueError as error:
        raise InputError(f"{path} is no UTF-8 text ({one_line(error)}); {AGAIN}") from error


def piece_numbers(beside: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return word piece -> number from a tokenizer.json; nothing where it says so in another way than BERT's."""
    if beside is None:
        return {}
    model, added = beside.get("model"), beside.get("added_tokens")
    pieces = model.get("vocab") if isinstance(model, dict) else None
    tokens = [each for each in added if isinstance(each, dict)] if isinstance(added, list) else []
    numbers = {str(each.get("content")): each.get("id") for each in tokens}
    return {**pieces, **numbers} if isinstance(pieces, dict) else {}


def check_tokenizer(words: PreTrainedTokenizerBase, folder: Path, fields: Fields, *, name: str, pairs: bool) -> None:
    """Raise InputError unless the tokenizer is whole and belongs to a model of these fields.

    Args:
        fields: the model's configuration.
        name: the backbone's.
        pairs: whether two texts at once are read.
    """
    problems = [*numbering_problems(words, folder, fields), *framing_problems(words, pairs=pairs)]
    if problems:
        raise InputError(f"the tokenizer of backbone {name!r} does not fit: {'; '.join(problems[:3])}")


def numbering_problems(words: PreTrainedTokenizerBase, folder: Path, fields: Fields) -> Iterator[str]:
    """Yield what is wrong with the numbers of word pieces."""
    rows, pieces = int(fields["vocab_size"]), words.get_vocab()
    last = max(pieces, key=lambda piece: pieces[piece], default="")
    lacking = [
        special for special in SPECIAL if getattr(words, f"{special}_token") not in declared_pieces(words, folder)
    ]
    if lacking:
        names = ", ".join(f"[{special.upper()}]" for special in lacking)
        yield f"its vocabulary lacks {names}; {AGAIN}"
    elif pieces[last] >= rows:
        yield f"{show_value(last)} has number {pieces[last]}, but the table of embeddings has {rows} rows; {RESIZE}"
    elif len(set(pieces.values())) < len(pieces):
        yield f"two of its {len(pieces)} word pieces have one number; {AGAIN}"
    elif not any(-(-len(pieces) // multiple) * multiple == rows for multiple in (1, *PADDED)):
        yield f"it has {len(pieces)} word pieces, but the table of embeddings has {rows} rows; {RESIZE}"
    elif words.pad_token_id != (fields["pad_token_id"] or 0):
        yield (
            f"its [PAD] has number {words.pad_token_id}, but pad_token_id is {fields['pad_token_id']} in config.json; "
            "make them equal"
        )
    if is_lowered(words):
        yield (
            "its vocabulary is cased, but it writes texts in lower case; add "
            '{"tokenizer_class": "BertTokenizer", "do_lower_case": false} as tokenizer_config.json'
        )


def declared_pieces(words: PreTrainedTokenizerBase, folder: Path) -> set[str]:
    """Return the word pieces that a file has; transformers adds special tokens that none has, behind the last row."""
    pieces = set(words.backend_tokenizer.get_vocab(with_added_tokens=False))
    if is_there(folder / "tokenizer.json"):
        pieces |= set(piece_numbers(json_object(folder / "tokenizer.json")))
    if is_there(folder / "added_tokens.json"):
        pieces |= set(json_object(folder / "added_tokens.json"))
    return pieces


def is_lowered(words: PreTrainedTokenizerBase) -> bool:
    """Say whether a cased vocabulary is read in lower case: many pieces then never occur."""
    normalizer = words.backend_tokenizer.normalizer
    usual = [piece for piece in words.get_vocab() if piece not in words.all_special_tokens and piece[:1] != "["]
    if normalizer is None or not usual or normalizer.normalize_str("A") != "a":
        return False
    return sum(piece != piece.lower() for piece in usual) >= CASED * len(usual)


def framing_problems(words: PreTrainedTokenizerBase, *, pairs: bool) -> Iterator[str]:
    """Yield what is wrong with the tokens around texts, and with their segments."""
    first, last, text = words.cls_token_id, words.sep_token_id, "a"
    try:
        inner = len(words(text, add_special_tokens=False)["input_ids"])
        one, two = (words(*texts, return_token_type_ids=True) for texts in ((text,), (text, text)))
    except Exception as error:
        yield f"it cannot read a text: {one_line(error)}; {SAVE}"
        return
    middle = [None] * inner
    for read, wanted, what in (
        (one, [first, *middle, last], "a text"),
        (two, [first, *middle, last, *middle, last], "a pair"),
    ):
        ids = read["input_ids"]
        differs = any(token is not None and token != got for token, got in zip(wanted, ids, strict=False))
        if len(ids) != len(wanted) or differs:
            yield f"it does not put [CLS] before and [SEP] behind {what}; {SAVE}"
            return
    if any(one["token_type_ids"]) or (pairs and two["token_type_ids"] != [0] * (inner + 2) + [1] * (inner + 1)):
        yield f"it does not number BERT's segments, 0 for the first text and 1 for the second; {SAVE}"
