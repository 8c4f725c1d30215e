"""Files and folders that are finished or not there. A folder is assembled aside, marked as whole last, and renamed:

root/<name>/           finished; it holds the marker
root/.<name>.partial/  under way: checkpoints, chunks, and at last the folder itself as `ready`; what it is made with
root/.<name>.lock      held by the command that makes it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import ClassVar

from bench.errors import InputError, disk_errno
from bench.store.locks import exclusive_lock as exclusive_lock

MADE_WITH = "made_with.txt"


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give a file of this process alone, which takes the place of `path` once it is written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors_at(path):
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def disk_errors_at(path: Path) -> Iterator[None]:
    """Let a disk's refusal within the block, whichever library reports it, name what could not be written.

    Raises:
        OSError: the disk is full, say; with `path` as its file.
    """
    try:
        yield
    except Exception as error:
        number = disk_errno(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def flush(folder: Path) -> None:
    """Wait until all files in a folder and below have reached the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def require_folder(folder: Path, *, kind: str) -> None:
    """Check that a folder may be made.

    Args:
        kind: what it will be, "a report".

    Raises:
        InputError: it is a file or lies below one.
    """
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise InputError(f"{file} is a file, but {kind} is a folder; name another")


def require_own(folder: Path, names: Collection[str], *, kind: str) -> None:
    """Check that a folder may be written to: it is new, empty, or holds nothing but what is written there.

    Args:
        names: of what is written there, as patterns.
        kind: "a report".

    Raises:
        InputError: it is a file or lies below one, or holds something of another name.
    """
    require_folder(folder, kind=kind)
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    strangers = [name for name in present if not any(fnmatchcase(name, pattern) for pattern in names)]
    if strangers:
        raise InputError(f"{folder} holds {strangers[0]!r}, which is no part of {kind}; name an empty or new folder")


def require_new(files: Iterable[Path], *, force: bool) -> None:
    """Check that files may be written: none is there, or `force` is given.

    Raises:
        InputError: one is there.
    """
    for path in files:
        if path.exists() and not force:
            raise InputError(f"{path} is already there; name another folder, or pass --force to replace it")


def digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of the names and contents of the files right in a folder."""
    if path.is_dir():
        files = {file.name: digest(file) for file in sorted(path.iterdir()) if file.is_file()}
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    status = path.stat()
    return _digest(path, status.st_mtime_ns, status.st_size)


@cache
def _digest(path: Path, changed: int, size: int) -> str:
    """Return the digest of a file as it was last changed: a plan asks for it at every operating point."""
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

    def partial(self, name: str, *, made_with: Iterable[str] = ()) -> Path:
        """Return the folder of unfinished work; hidden from every listing, made on demand.

        Args:
            made_with: ids of the stages that it comes of, for `unfinished_ids`.
        """
        folder = self._partial(name)
        with disk_errors_at(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if stages := list(made_with):
                with aside(folder / MADE_WITH) as part:
                    part.write_text("\n".join(stages), encoding="utf8")
        return folder

    def unfinished_ids(self, stages: Collection[str]) -> list[str]:
        """Return the names of unfinished folders that come of one of these stages."""
        files = sorted(self.root.glob(f".*.partial/{MADE_WITH}"))
        of = {path.parent.name[1:].removesuffix(".partial"): _words(path) for path in files}
        return [name for name, chain in of.items() if set(stages) & set(chain)]

    def __contains__(self, name: str) -> bool:
        return (self.folder(name) / self.marker).is_file()

    def ids(self) -> Iterator[str]:
        """Return the names of the finished folders, sorted."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if not folder.name.startswith(".") and folder.name in self:
                    yield folder.name

    @contextmanager
    def assemble(self, name: str) -> Iterator[Path]:
        """Give an empty folder, renamed to its name when the block ends, whose last act is to write the marker."""
        with disk_errors_at(self.folder(name)):
            ready = self.partial(name) / "ready"
            shutil.rmtree(ready, ignore_errors=True)
            ready.mkdir()
            try:
                yield ready
                flush(ready)
                self._drop(name)
                ready.replace(self.folder(name))
            finally:
                shutil.rmtree(ready, ignore_errors=True)  # what a failure or an interruption has left of it
            shutil.rmtree(self._partial(name), ignore_errors=True)

    def restart(self, name: str) -> None:
        """Forget a folder and what an unfinished attempt at it has kept (`--fresh`)."""
        self._drop(name)
        shutil.rmtree(self._partial(name), ignore_errors=True)

    def _partial(self, name: str) -> Path:
        return self.root / f".{name}.partial"

    def _drop(self, name: str) -> None:
        """Remove a folder, the marker first, so that a half-removed one is not taken for a finished one."""
        folder = self.folder(name)
        if folder.is_file():
            folder.unlink()
        if (folder / self.marker).is_file():
            (folder / self.marker).unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _words(path: Path) -> list[str]:
    """Read the words of a file, whatever a damaged one holds."""
    return path.read_text(encoding="utf8", errors="replace").split()
