"""The one exception a user of this package is meant to read, and how a value is shown in it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

LONGEST = 40
"""Characters of a string that a message shows; a longer one may be a text, and is told by its length."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says the value, the rule and the remedy, in one line."""


class _Short(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        return repr(x) if len(x) <= LONGEST else f"({len(x)} characters)"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        return f"{{{', '.join(self.repr1(key, level) for key in list(x)[: self.maxdict])}: ...}}" if x else "{}"


_SHORT = _Short()
_SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4
_SHORT.maxlevel = 3


def shorten(value: object) -> str:
    """Write a value in one short line, of an object its keys alone; JSON's constants under JSON's names."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else _SHORT.repr(value)
