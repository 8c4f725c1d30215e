"""Text from data sets and files as it may be shown: what nobody can see, or what turns text round, becomes a mark.

A direction override would turn round what stands beside it, an escape sequence would drive the terminal, and texts that
differ in a character of no width would look the same. The mark is the character's number, as `[U+202E]`.
"""

from __future__ import annotations

import re
import unicodedata

_KEPT = "\t\n"

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
    "|[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff]"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
)
"""Controls, surrogates without a partner, and what Unicode calls ignorable: joiners, selectors, fillers, tags."""

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """Put a mark in the place of every character that cannot be seen; tabs and line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_mark(letter) if _is_unseen(letter) else letter for letter in text)


def visible_line(text: str) -> str:
    """Do as `visible`, with tabs and line ends as spaces: for a cell of a table, or a message."""
    return visible(text.replace("\r\n", "\n")).translate({ord(letter): " " for letter in _KEPT})


def _is_unseen(letter: str) -> bool:
    if letter in _KEPT:
        return False
    return unicodedata.category(letter) in _CATEGORIES or _UNSEEN.match(letter) is not None


def _mark(letter: str) -> str:
    return f"[U+{ord(letter):04X}]"
