"""Files of a foreign model's folder, opened so that whatever is wrong with one of them is a line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import InputError, first_line

POINTER = b"version https://git-lfs"
AGAIN = "copy or download it again"


def is_there(path: Path) -> bool:
    """Say whether something has this name, also a link to nothing, which `Path.exists` denies."""
    return path.is_symlink() or path.exists()


def require_file(path: Path) -> None:
    """Raise InputError unless this is a file with content that can be read and is the content itself."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to a file that is not there; {AGAIN}")
    if path.is_dir():
        raise InputError(f"{path} is a folder, but it must be a file; {AGAIN}")
    try:
        with path.open("rb") as file:
            head = file.read(len(POINTER))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {AGAIN}, or give yourself the right") from error
    if not head:
        raise InputError(f"{path} is empty; {AGAIN}")
    if head == POINTER:
        raise InputError(f"{path} is a pointer of Git's large-file storage, not the file itself; run: git lfs pull")


def json_object(path: Path) -> dict[str, Any]:
    """Read the object that a JSON file holds.

    Raises:
        InputError: no file that can be read, no UTF-8, no JSON, or no object.
    """
    require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON text ({first_line(error)}); {AGAIN}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}, but it must be an object; {AGAIN}")
    return content


def show_value(value: object) -> str:
    """Return a value of a file for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def one_line(error: BaseException) -> str:
    """Return what a library says first, cut where it is long, or else the error's kind."""
    said = first_line(error).strip()
    return (said if len(said) <= 200 else f"{said[:197]}...") or type(error).__name__
