"""The one exception a user of this package is meant to read, and how a value is shown in it."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4
_SHORT.maxlevel = 3


class InputError(ValueError):
    """Something the user gave is wrong: the message says the value, the rule and the remedy, in one line."""


def shown(value: object) -> str:
    """A value in one short line; JSON's constants under their own names."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else _SHORT.repr(value)
