"""Documents: what a token is, what a sentence is, and how long the documents of a folder are.

Tokens are separated by blanks, tabs and line ends (not by other Unicode spaces, which the official readers keep
inside a token); sentences are the lines that are not blank. Both layouts, docs.jsonl and docs/, are read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eraser_eval.errors import InputError, shorten
from eraser_eval.formats.fields import name, text
from eraser_eval.formats.foreign import is_left_by_desktop
from eraser_eval.formats.lines import read_objects, read_text

TOKEN = re.compile(r"[^ \t\n\r\f\v]+")


class Size(NamedTuple):
    """The number of tokens and of sentences of a document."""

    tokens: int
    sentences: int


def tokens(document: str) -> list[str]:
    """Split a document into its tokens, in order."""
    return TOKEN.findall(document)


def size(document: str) -> Size:
    """Count the tokens and sentences of a document."""
    encoded = document.encode("utf8", "surrogatepass")
    return Size(len(encoded.split()), sum(map(bool, map(bytes.strip, encoded.split(b"\n")))))


def read_documents(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (docid, text) of every document of a data set, one after the other.

    Raises:
        InputError: there is no layout of documents or two, or a document is malformed or there twice.
    """
    lines, files = folder / "docs.jsonl", folder / "docs"
    paths = _files(files)
    if lines.is_file() and paths:
        raise InputError(f"{folder} has both docs.jsonl and docs/; remove the one that is not meant")
    if lines.is_file():
        yield from _read_lines(lines)
    elif files.is_dir():
        yield from ((path.name, read_text(path)) for path in paths)
    else:
        raise InputError(f"{folder} has neither docs.jsonl nor docs/; pass a folder in ERASER's layout")


def read_sizes(folder: Path) -> dict[str, Size]:
    """Read docid -> size of every document; one text at a time is in memory.

    Raises:
        InputError: as `read_documents`.
    """
    return {docid: size(document) for docid, document in read_documents(folder)}


def _files(folder: Path) -> list[Path]:
    """List the files of docs/ by name, without what a desktop or an editor leaves there."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if path.is_file() and not is_left_by_desktop(path.name))


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for where, row in read_objects(path):
        if "docid" not in row or "document" not in row:
            fields = shorten(list(row))
            raise InputError(f"{where}: a document needs the strings 'docid' and 'document', it has {fields}")
        docid = name(row["docid"], "docid", where)
        if docid in seen:
            raise InputError(f"{where}: document {shorten(docid)} is there twice; keep one")
        seen.add(docid)
        yield docid, text(row, "document", where)
