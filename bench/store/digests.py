"""Write and check digests (SHA-256) of the files of a finished folder, so that damage is noticed.

The marker carries the digests of all files beside it and, under its own name, that of everything else it says.
Markers of earlier versions carry none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.store.folders import digest

DIGESTS = "digests"
"""The field of a marker: file -> SHA-256, hexadecimal."""


def digests_below(folder: Path) -> dict[str, str]:
    """Return the digests of all files in a folder and below, by their paths from there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return digests_of(folder, sorted(path.relative_to(folder).as_posix() for path in files))


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of these files, which lie in a folder or below."""
    return {name: digest(folder / name) for name in names}


def marker_text(content: Mapping[str, Any], digests: Mapping[str, str], marker: str) -> str:
    """Return the text of a marker with this content and these digests of the files beside it."""
    marker_content = {**content, DIGESTS: dict(digests)}
    seal = digest_of(json.loads(json.dumps(marker_content)))
    return json.dumps({**marker_content, DIGESTS: {**digests, marker: seal}}, indent=2)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a marker says, but for its digests."""
    said = {name: value for name, value in content.items() if name != DIGESTS}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def require_seal(content: Mapping[str, Any], path: Path, *, remedy: str) -> None:
    """Check that a marker says what it said when it was written.

    Raises:
        InputError: it does not, or its digests are none.
    """
    digests = content.get(DIGESTS, {})
    if not isinstance(digests, dict) or (digests and digests.get(path.name) != digest_of(content)):
        raise InputError(f"{path} is damaged: its content is not what its digest is of; {remedy}")


def require_unchanged(
    folder: Path, digests: Mapping[str, str], *, remedy: str, names: Collection[str] | None = None, without: str = ""
) -> None:
    """Check the files of a folder against their digests.

    Args:
        names: those to check, by default all.
        without: the marker, which has a check of its own.

    Raises:
        InputError: one is missing or has another content.
    """
    for name, known in digests.items():
        if name == without or (names is not None and name not in names):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; {remedy}")
        if digest(path) != known:
            raise InputError(f"{path} is damaged: its content is not what its digest is of; {remedy}")
