"""Files of one JSON object per line: read in bounded memory, written aside and renamed.

Every line that is not one plain JSON object is refused with its file and number: no text, another encoding than
UTF-8, a key that occurs twice, a line above `LINE_LIMIT`; and so is a file that is something else
(`eraser_eval.formats.foreign`). A byte order mark and blank lines are passed over. NaN and Infinity, which JSON has
not, are left to `eraser_eval.formats.fields`, which refuses them by the name of their field. Files may be gzipped,
whatever their name.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.foreign import START, explain

LINE_LIMIT = 16 * 2**20
"""Bytes of the longest line, and of the longest document in a file of its own; some million tokens."""

HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half a surrogate pair, which no file can hold as text."""

GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Location:
    """A line of a file, counted from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


def read_objects(path: Path) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Yield (location, object) of every line that is not blank.

    Raises:
        InputError: the file cannot be read, or a line is not one JSON object.
    """
    for number, line in enumerate(_lines(path), start=1):
        where = Location(path, number)
        if len(line) > LINE_LIMIT:
            raise InputError(f"{where} is longer than {LINE_LIMIT:,} bytes, the limit of one line; is it JSON lines?")
        if not line.isspace():
            yield where, _object(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line, where)


def write_objects(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object per line, gzipped where the name ends with .gz; the file appears when it is whole.

    Raises:
        InputError: a text has half a surrogate pair, which UTF-8 cannot hold, a number is not finite, or the file
            cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(aside.open("wb"))
            if path.suffix == ".gz":
                file = cast(IO[bytes], stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))
            file.writelines(_encode(row, Location(path, number)) for number, row in enumerate(rows, start=1))
        aside.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that is there"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Read a whole file of text.

    Raises:
        InputError: it cannot be read, is larger than `LINE_LIMIT`, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LINE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); pass another file") from error
    _require_plain(content[:START], path, markup=True)
    if len(content) > LINE_LIMIT:
        raise InputError(f"{path} is longer than {LINE_LIMIT:,} bytes, the limit of one document; split it")
    return decode(content.removeprefix(BYTE_ORDER_MARK), path).replace("\r\n", "\n").replace("\r", "\n")


def decode(content: bytes, where: Location | Path) -> str:
    """Decode bytes, which must be UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start}); convert it") from error


def _require_plain(start: bytes, path: Path, *, markup: bool = False) -> None:
    what = explain(start, markup=markup)
    if what is not None:
        raise InputError(f"{path} {what}")


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, each cut at one byte above the limit."""
    try:
        with ExitStack() as stack:
            opened = stack.enter_context(path.open("rb"))
            start = opened.peek(START)[:START]  # a pipe could not be read again from its start
            packed = start.startswith(GZIP)
            if not packed:
                _require_plain(start, path)
            file = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=opened)) if packed else opened)
            while line := file.readline(LINE_LIMIT + 1):
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file ({error}); write it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); pass a file of JSON lines") from error


def _encode(row: Mapping[str, Any], where: Location) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise InputError(
            f"{where} cannot be written as JSON in UTF-8 ({error}); give finite numbers and text"
        ) from error


def _object(line: bytes, where: Location) -> dict[str, Any]:
    text = decode(line, where)
    try:
        row = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is no JSON text ({error.msg}, column {error.colno}); each line is one object"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply; each line is one object of a few levels") from error
    except ValueError as error:
        raise InputError(f"{where} is no JSON text ({_reason(error)}); each line is one object") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is a {type(row).__name__}, but each line must be a JSON object")
    if HALF.search(text):
        _check_surrogates(row, where)
    return row


def _reason(error: ValueError) -> str:
    """Say what is wrong, but not in Python's words on long numbers, which are for programmers."""
    return str(error) if isinstance(error, _DoubleKeyError) else "a number of too many digits"


def _check_surrogates(row: Mapping[str, Any], where: Location) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply; each line is one object of a few levels") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where} has half a surrogate pair, which is no text; write the whole character") from error


class _DoubleKeyError(ValueError):
    """A key of an object occurs twice."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubleKeyError(f"the key {shorten(next(name for name in names if names.count(name) > 1))} occurs twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)
