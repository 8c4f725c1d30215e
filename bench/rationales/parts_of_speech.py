"""Parts of speech, from TextBlob's rule-based English tagger: a lexicon and rules in plain text, no model to fetch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

PARTS = {
    "NN": "noun",
    "VB": "verb",
    "MD": "verb",
    "JJ": "adjective",
    "RB": "adverb",
    "PR": "pronoun",
    "WP": "pronoun",
    "WR": "adverb",
    "DT": "determiner",
    "PD": "determiner",
    "WD": "determiner",
    "IN": "preposition",
    "TO": "preposition",
    "CC": "conjunction",
    "CD": "number",
}
"""First two letters of a Penn Treebank tag -> part of speech; all others are "other"."""


def parts_of_speech(words: Sequence[str]) -> list[str]:
    """Return the part of speech of each word of an English text, in lower case as it is read; or punctuation.

    The tagger knows some 100,000 words by their commonest part of speech and looks at endings and neighbours for the
    rest, so that of an ambiguous word it is often wrong.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its lexicon's file open
        from textblob.en import parser

        tagged = parser.find_tags([word.lower() for word in words])
    return [
        PARTS.get(tag[:2], "other") if any(letter.isalnum() for letter in word) else "punctuation"
        for word, (_, tag) in zip(words, tagged, strict=True)
    ]
