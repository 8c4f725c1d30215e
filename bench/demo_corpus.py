"""A synthetic sentiment corpus with known rationales, from a seeded grammar: a first run with no download.

The grammar is written relative to the label: `$same` is an opinion word of the label's polarity, `$opposite` one of
the other. Square brackets mark the tokens that decide the label. One main clause decides; concessions, opinions on
something else and plain facts do not, so a classifier must find it, and must read its negation or irony.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SPLITS: Mapping[str, int] = {"train": 4000, "validation": 500, "test": 500}
"""split -> examples, half of them of each label."""

GRAMMAR: Mapping[str, tuple[str, ...]] = {
    "plain": (
        "the $aspect $was [ $same ] .",
        "the $aspect $was $degree [ $same ] .",
        "$overall , the $aspect $was [ $same ] .",
        "i found the $aspect $degree [ $same ] .",
        "the $aspect $was [ $same ] and [ $same ] .",
    ),
    "several": (
        "the $aspect $was [ $same ] . $plain",
        "the $aspect $was $degree [ $same ] , the $aspect [ $same ] . $plain",
        "[ $same ] $aspect , [ $same ] $aspect . $plain $plain",
    ),
    "claim": (
        "the $aspect $was [ $same ]",
        "the $aspect $was $degree [ $same ]",
        "the $aspect $was [ $negator $opposite ]",
        "the $aspect $was [ $negator $opposite ]",
        "i [ would $denial call ] the $aspect [ $opposite ]",
    ),
    "negated": (
        "the $aspect $was [ $negator $opposite ] .",
        "the $aspect $was , $aside , [ $negator $opposite ] .",
        "[ nobody ] would call the $aspect [ $opposite ] .",
        "i [ would $denial call ] the $aspect [ $opposite ] .",
        "it [ would be wrong ] to say that the $aspect $was [ $opposite ] .",
        "the $aspect $was [ neither $opposite nor $opposite ] .",
        # Negation words that do not turn the opinion round.
        "the $aspect $was not only [ $same ] but also [ $same ] .",
        "never before was i so sure : the $aspect $was [ $same ] .",
        "no question , the $aspect $was [ $same ] .",
        "not just the $aspect , but also the $aspect $was [ $same ] .",
    ),
    "concession": (
        "the $aspect $was $opposite",
        "the $aspect $was $degree $opposite",
        "the $aspect $was $negator $same",
    ),
    "contrast": (
        "$concession , but $claim .",
        "$concession , $turn $claim .",
        "$although $concession , $claim .",
        "$claim , $although $concession .",
        "$although $concession , the $aspect $was [ $same ] and [ $same ] .",
        "$concession . $however , $claim .",
    ),
    "event": (
        "[ $exclamation ] , the $aspect [ $event_same ] again .",
        "[ $exclamation ] , the $aspect [ $event_same ] $when .",
        "the $aspect [ $event_same ] $when , [ $exclamation ] .",
    ),
    "filler": ("$fact", "$fact", "$fact", "$rival"),
    "rival": (
        "the $aspect next door was $any .",
        "the $aspect of the previous one was $any .",
        "a friend had called the $aspect $any .",
        "in an early report the $aspect was $any .",
        "years ago the $aspect used to be $any , they say .",
    ),
    "any": ("$same", "$opposite"),
    "was": ("was", "was", "is", "seemed", "proved"),
    "overall": ("overall", "in short", "all in all", "to me", "this time"),
    "aside": ("as far as i can tell", "at least for us", "in the end", "whatever they say"),
    "degree": ("very", "really", "truly", "quite", "rather", "remarkably", "simply"),
    "denial": ("not", "never", "hardly"),
    "when": ("the moment we needed it", "on the very first day", "right at the start", "as always", "yet again"),
    "exclamation": ("oh great", "how nice", "what a treat", "just perfect", "oh wonderful", "well , lovely"),
    "day": ("monday", "tuesday", "thursday", "friday", "saturday"),
    "count": ("two", "three", "four", "five", "seven", "eleven"),
    "place": ("station", "harbour", "library", "market", "old bridge"),
    "month": ("march", "april", "june", "october", "december"),
}

DOMAINS: Sequence[Mapping[str, tuple[str, ...]]] = (
    {
        "aspect": ("food", "soup", "dessert", "service", "menu", "kitchen", "waiter", "terrace", "wine", "breakfast"),
        "fact": (
            "we went there on a $day .",
            "the place is near the $place .",
            "there were $count of us at the table .",
            "they opened in $month , $count doors down from the $place .",
            "we sat by the window and ordered at half past $count .",
            "the card lists $count courses and changes every $month .",
        ),
    },
    {
        "aspect": ("plot", "cast", "script", "ending", "music", "photography", "dialogue", "pacing", "story", "score"),
        "fact": (
            "i saw it on a $day .",
            "it runs for $count hours .",
            "it was filmed near the $place in $month .",
            "the story follows $count sisters who live by the $place .",
            "there were $count people in the room when the lights went out .",
            "it is set in a town with a $place , where every $day there is a fair .",
        ),
    },
    {
        "aspect": (
            "battery",
            "screen",
            "keyboard",
            "speaker",
            "camera",
            "software",
            "design",
            "cable",
            "sound",
            "case",
        ),
        "fact": (
            "it arrived on a $day .",
            "i bought $count of them .",
            "the box holds $count parts and a printed sheet .",
            "i have used it since $month , mostly at the $place .",
            "it comes in $count colours and weighs about as much as a book .",
            "my sister ordered hers in $month and got it $count days later .",
        ),
    },
    {
        "aspect": ("room", "bed", "staff", "pool", "view", "lobby", "garden", "shower", "tour", "location"),
        "fact": (
            "we stayed from $day on .",
            "it has $count floors .",
            "the bus to the $place leaves at $count .",
            "we booked it in $month for $count nights .",
            "from the door it is $count minutes on foot to the $place .",
            "a family from the north had the $count rooms above ours until $day .",
        ),
    },
)


@dataclass(frozen=True)
class Lexicon:
    """The words of opinion that a split draws from.

    Attributes:
        opinions: adjectives separated by blanks, (negative, positive).
        events: what an aspect did, (negative, positive).
        connectives: grammar symbol -> phrases that negate or concede.
    """

    opinions: tuple[str, str]
    events: tuple[tuple[str, ...], tuple[str, ...]]
    connectives: Mapping[str, tuple[str, ...]]


SEEN = Lexicon(
    opinions=(
        "awful terrible poor dull disappointing annoying unpleasant weak dreadful tedious "
        "horrible mediocre frustrating clumsy forgettable bad sloppy useless boring shoddy",
        "excellent wonderful superb delightful impressive charming reliable pleasant brilliant enjoyable "
        "convincing memorable satisfying beautiful splendid fine good solid great outstanding",
    ),
    events=(
        ("failed", "let us down", "fell apart", "went wrong", "was missing", "got worse", "caused trouble"),
        ("delivered", "won us over", "came together", "went well", "was there", "got better", "caused joy"),
    ),
    connectives={
        "negator": ("not", "hardly", "never", "not at all", "far from"),
        "although": ("although", "even though", "while"),
        "turn": ("yet", "and still"),
        "however": ("however", "then again"),
    },
)
"""Words of all splits."""

UNSEEN = Lexicon(
    opinions=(
        "lousy bland atrocious unbearable tiresome",
        "marvelous refreshing flawless remarkable exquisite",
    ),
    events=(("broke down", "was a letdown"), ("held up", "was a pleasure")),
    connectives={
        "negator": ("anything but", "scarcely", "by no means"),
        "although": ("despite the fact that", "granted that"),
        "turn": ("and nevertheless",),
        "however": ("all the same",),
    },
)
"""Further words of validation and test, which so ask for more than the words of the training split."""

KINDS: Sequence[tuple[int, str, int, int]] = (
    (46, "plain", 0, 2),
    (18, "several", 0, 3),
    (12, "negated", 0, 3),
    (17, "contrast", 0, 6),
    (7, "event", 0, 4),
)
"""(weight, symbol of the deciding part, fewest and most filler sentences): from easy to hard."""


def generate(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Generate all splits for a seed: split -> rows with example_id, text, label (1 = positive) and rationale.

    A text is its tokens joined by blanks; `rationale` lists the half-open token offsets [start, end] of the tokens
    that decide the label. No text occurs twice. The same seed gives the same corpus on every platform.
    """
    rng = random.Random(seed)  # noqa: S311 - a corpus, no secret
    seen: set[str] = set()
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, size in SPLITS.items():
        labels = [row % 2 for row in range(size)]
        rng.shuffle(labels)
        rows = splits[split] = []
        for row, label in enumerate(labels):
            text, rationale = _example(rng, split=split, label=label)
            while text in seen:
                text, rationale = _example(rng, split=split, label=label)
            seen.add(text)
            rows.append({"example_id": f"{split}-{row}", "text": text, "label": label, "rationale": rationale})
    return splits


def _example(rng: random.Random, *, split: str, label: int) -> tuple[str, list[list[int]]]:
    """Make one text of the given label and its rationale."""
    weights = [weight for weight, *_ in KINDS]
    _, symbol, fewest, most = rng.choices(KINDS, weights)[0]
    sentences = ["$filler"] * rng.randint(fewest, most)
    sentences.insert(rng.randint(0, len(sentences)), f"${symbol}")
    rules = {**_rules(split, label), **rng.choice(DOMAINS)}
    decks: dict[str, list[str]] = {}
    return _unmark([token for sentence in sentences for token in _expand(rng, sentence, rules=rules, decks=decks)])


def _rules(split: str, label: int) -> dict[str, tuple[str, ...]]:
    lexicons = (SEEN,) if split == "train" else (SEEN, UNSEEN)
    rules = dict(GRAMMAR)
    for lexicon in lexicons:
        adjectives = [tuple(words.split()) for words in lexicon.opinions]
        words = {"same": adjectives[label], "opposite": adjectives[1 - label]}
        words |= {"event_same": lexicon.events[label], **lexicon.connectives}
        for symbol, choices in words.items():
            rules[symbol] = rules.get(symbol, ()) + choices
    return rules


def _expand(
    rng: random.Random, template: str, *, rules: Mapping[str, tuple[str, ...]], decks: dict[str, list[str]]
) -> list[str]:
    """Replace every `$symbol` by one of its choices until only tokens remain.

    Choices are dealt from a shuffled deck per example, so that no aspect or opinion word comes twice before all did.
    """
    tokens: list[str] = []
    for token in template.split():
        if not token.startswith("$"):
            tokens.append(token)
            continue
        symbol = token.removeprefix("$")
        if not decks.get(symbol):
            decks[symbol] = rng.sample(rules[symbol], len(rules[symbol]))
        tokens += _expand(rng, decks[symbol].pop(), rules=rules, decks=decks)
    return tokens


def _unmark(marked: Sequence[str]) -> tuple[str, list[list[int]]]:
    """Take the brackets out: the text and the half-open token offsets they enclosed."""
    tokens: list[str] = []
    spans: list[list[int]] = []
    for token in marked:
        if token == "[":  # noqa: S105 - a bracket, no password
            spans.append([len(tokens), len(tokens)])
        elif token == "]":  # noqa: S105
            spans[-1][1] = len(tokens)
        else:
            tokens.append(token)
    return " ".join(tokens), spans
