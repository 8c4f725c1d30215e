"""Files and folders that are finished or not there. A folder is assembled aside, marked as whole last, and renamed:

root/<name>/           finished; it holds the marker
root/.<name>.partial/  under way: checkpoints, chunks, and at last the folder itself as `ready`
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A file of this process alone that takes the place of `path` once it is written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or of the names and contents of the files right in a folder."""
    if path.is_dir():
        files = {own.name: digest(own) for own in sorted(path.iterdir()) if own.is_file()}
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    found = path.stat()
    return _digest(path, found.st_mtime_ns, found.st_size)


@cache
def _digest(path: Path, changed: int, size: int) -> str:
    """Of a file as it was last changed: a plan asks for every operating point."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folders:
    """Finished folders below `root`."""

    root: Path
    marker: ClassVar[str]
    """The file that makes a folder finished."""

    def folder(self, name: str) -> Path:
        return self.root / name

    def partial(self, name: str) -> Path:
        """Where an unfinished one keeps what it has; hidden from every listing, made on demand."""
        folder = self._partial(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __contains__(self, name: str) -> bool:
        return (self.folder(name) / self.marker).is_file()

    def ids(self) -> Iterator[str]:
        """Names of the finished ones, sorted."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if not folder.name.startswith(".") and folder.name in self:
                    yield folder.name

    @contextmanager
    def assembled(self, name: str) -> Iterator[Path]:
        """An empty folder, renamed into place when the block ends, whose last act is to write the marker."""
        ready = self.partial(name) / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        yield ready
        self._drop(name)
        ready.replace(self.folder(name))
        shutil.rmtree(self._partial(name))

    def restart(self, name: str) -> None:
        """Forget a folder and what an unfinished attempt at it has kept (`--fresh`)."""
        self._drop(name)
        shutil.rmtree(self._partial(name), ignore_errors=True)

    def _partial(self, name: str) -> Path:
        return self.root / f".{name}.partial"

    def _drop(self, name: str) -> None:
        """The marker goes first, so that a half-removed folder is none."""
        (self.folder(name) / self.marker).unlink(missing_ok=True)
        shutil.rmtree(self.folder(name), ignore_errors=True)
