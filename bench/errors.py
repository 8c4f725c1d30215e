"""The one exception a user is meant to read, and what to do where a disk refuses a write."""

from __future__ import annotations

import errno
import os
import re
import sys


class InputError(ValueError):
    """Something the user gave is wrong: the message says the value, the rule and the remedy, in one line."""


def input_errors() -> tuple[type[ValueError], ...]:
    """Return the classes that stand for wrong input: this one, and those of the leaf packages that are loaded."""
    modules = (sys.modules.get(f"{package}.errors") for package in ("efficient_bert", "eraser_eval"))
    return (InputError, *(module.InputError for module in modules if module))


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error: the rest is for its developers."""
    return str(error).strip().partition("\n")[0]


DISK_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "allow larger files (ulimit -f), or choose another disk",
    errno.EIO: "check that disk, or choose another one",
    errno.EROFS: "choose a folder that may be written",
}
"""Ways in which a disk refuses a write, and what to do about each."""

_RUST = re.compile(r"\(os error (\d+)\)")
"""The number of a system error in exceptions of safetensors and tokenizers, which are no OSError."""


def disk_errno(error: BaseException) -> int | None:
    """Return the number of a disk's refusal, whichever library reports it; None of any other error."""
    known = error.errno if isinstance(error, OSError) else None
    named = _RUST.search(str(error)) if known is None else None
    number = int(named.group(1)) if named else known
    return number if number in DISK_REMEDIES else None


def system_trouble(error: OSError) -> str:
    """Say in one line what the system refused, and the remedy."""
    if error.filename is None:
        return first_line(error) or type(error).__name__
    number = disk_errno(error)
    if number is None:
        return f"{error.filename}: {error.strerror}; is the folder there, and may it be written?"
    return (
        f"{error.filename} could not be written: {os.strerror(number)}; {DISK_REMEDIES[number]} and give the same "
        "command again: it goes on from what is finished"
    )
