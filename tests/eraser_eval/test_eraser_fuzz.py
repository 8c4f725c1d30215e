"""Damaged files never crash the scorer and never pass: one line says what is wrong, with exit code 2."""

from __future__ import annotations

import copy
import gzip
import json
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eraser_eval.formats.lines import LINE_LIMIT
from tests.support.eraser_files import DOCUMENTS, GOLD, Answer, lines, predictions, refused, scored, write

STRANGE = st.one_of(
    st.sampled_from([None, True, False, float("nan"), float("inf"), -1, 2.5, 10**400, "", "2", "\ud800", [], {}, [[]]]),
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=4
    ),
)
"""Values that belong nowhere, or rarely."""

Place = tuple[str | int, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of everything in nested objects and lists."""
    yield place
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*place, name))


def kind(value: object) -> str:
    """The JSON type of a value."""
    for name, types in {"boolean": bool, "number": (int, float), "string": str, "list": list, "object": dict}.items():
        if isinstance(value, types):  # type: ignore[arg-type]  # a type or a tuple of them
            return name
    return "null"


def at(rows: Any, place: Place) -> Any:
    """What is at a place."""
    for step in place:
        rows = rows[step]
    return rows


def replaced(rows: Any, place: Place, value: object) -> Any:
    """A copy with another value at a place."""
    found = copy.deepcopy(rows)
    at(found, place[:-1])[place[-1]] = value
    return found


def answer(*, given: bytes | None = None, gold: bytes | None = None, documents: bytes | None = None) -> Answer:
    """What the scorer says of damaged files."""
    with tempfile.TemporaryDirectory() as folder:
        return scored(write(Path(folder), given=given, gold=gold, documents=documents))


def encoded(rows: list[dict[str, Any]]) -> bytes:
    """Rows as JSON lines with everything outside of ASCII escaped, half surrogates too."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


PLACES = [place for place in places(predictions()) if len(place) > 1]
KEYS = [place for place in PLACES if isinstance(place[-1], str)]
GOLD_PLACES = [place for place in places(GOLD) if len(place) > 1 and place[1] != "query_type"]


def test_the_undamaged_files_are_scored() -> None:
    """Without damage there is a report with every block, so that what follows tests the damage."""
    found = answer()
    assert not refused(found)
    assert {"iou_scores", "sentence_soft_metrics", "classification_scores", "agreement"} <= set(found.report)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "/".join(map(str, place)))
def test_another_type_is_refused(place: Place) -> None:
    """In no field of a line may there be a value of another JSON type."""
    original = kind(at(predictions(), place))
    values: list[object] = [None, True, 0.5, "POS", [], {"POS": 1}]
    if place[-1] in {"annotation_id", "docid"}:
        values.remove("POS")
    for value in values:
        if kind(value) != original:
            assert refused(answer(given=encoded(replaced(predictions(), place, value)))), value


@pytest.mark.parametrize("place", KEYS, ids=lambda place: "/".join(map(str, place)))
def test_a_missing_field_is_refused(place: Place) -> None:
    """A field that other lines have may be missing in none, nor may a class in its probabilities."""
    rows = predictions()
    del at(rows, place[:-1])[place[-1]]
    assert refused(answer(given=encoded(rows)))


@settings(deadline=None, max_examples=150)
@given(place=st.sampled_from(PLACES), value=STRANGE)
def test_strange_values_do_not_crash(place: Place, value: object) -> None:
    """Any value anywhere leads to a report or to one line; what is no finite number leads to the line."""
    refusal = refused(answer(given=encoded(replaced(predictions(), place, value))))
    if isinstance(value, float) and value != 2.5:
        assert refusal


@settings(deadline=None, max_examples=100)
@given(place=st.sampled_from(GOLD_PLACES), value=STRANGE)
def test_strange_gold_does_not_crash(place: Place, value: object) -> None:
    """The same holds of the gold, where another type is refused too."""
    refusal = refused(answer(gold=encoded(replaced(GOLD, place, value))))
    absent = value is None and place[-1] in {"query", "docids"}  # as published files have them
    if place[-1] != "text" and not absent and kind(value) != kind(at(GOLD, place)):
        assert refusal


@settings(deadline=None, max_examples=100)
@given(spans=st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12)), max_size=3))
def test_spans_are_checked(spans: list[tuple[int, int]]) -> None:
    """Reversed, empty, negative, overlapping spans and spans past the end are refused, and no others."""
    rows = predictions()
    given_spans = [{"start_token": start, "end_token": end} for start, end in spans]
    rows[1]["rationales"][0]["hard_rationale_predictions"] = given_spans
    length = len(DOCUMENTS["deux"].split())
    covered = [token for start, end in set(spans) for token in range(start, end)]
    sound = all(0 <= start < end <= length for start, end in spans) and len(set(covered)) == len(covered)
    assert refused(answer(given=lines(rows))) != sound


@settings(deadline=None, max_examples=100)
@given(cut=st.integers(0, len(lines(predictions()))))
def test_truncated_files_are_refused(cut: int) -> None:
    """A file that ends early is refused, unless only its last line end is missing."""
    whole = lines(predictions())
    assert refused(answer(given=whole[:cut])) == (cut < len(whole) - 1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_gzip_is_refused(data: st.DataObject) -> None:
    """A gzip file that ends early is refused; one with another byte somewhere does not crash."""
    whole = gzip.compress(lines(predictions()), mtime=0)
    cut = data.draw(st.integers(1, len(whole) - 1))
    assert refused(answer(given=whole[:cut]))
    refused(answer(given=whole[:cut] + data.draw(st.binary(min_size=1, max_size=1)) + whole[cut + 1 :]))
    assert not refused(answer(given=whole))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_bytes_do_not_crash(data: st.DataObject) -> None:
    """Other bytes anywhere in any of the three files lead to a report or to one line."""
    name, whole = data.draw(
        st.sampled_from(
            [
                ("given", lines(predictions())),
                ("gold", lines(GOLD)),
                ("documents", lines([{"docid": docid, "document": text} for docid, text in DOCUMENTS.items()])),
            ]
        )
    )
    start = data.draw(st.integers(0, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=4)) + whole[start + data.draw(st.integers(0, 4)) :]
    refused(answer(**{name: damaged}))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32", "cp037"])
def test_mixed_encodings_are_refused(encoding: str) -> None:
    """A second line in another encoding is not guessed at."""
    first, second = lines(predictions()).splitlines(keepends=True)
    assert "è" in first.decode()
    assert refused(answer(given=second + first.decode().encode(encoding)))


@settings(deadline=None, max_examples=60)
@given(name=st.text(min_size=1))
def test_unknown_names_are_refused(name: str) -> None:
    """An annotation, document or class that nobody else has is refused, in one line whatever its characters."""
    rows = predictions()
    for place in [(0, "annotation_id"), (1, "rationales", 0, "docid"), (0, "classification")]:
        if name not in {"première", "seconde", "un", "deux", "POS", "NEG"}:
            assert refused(answer(given=encoded(replaced(rows, place, name))))


@pytest.mark.parametrize("start", [b'{"annotation_id": "', b'{"rationales": [[1, 2], ', b"\x00", b" "])
def test_a_line_of_100_megabytes_is_refused_in_bounded_memory(start: bytes, tmp_path: Path) -> None:
    """The line is not read to its end."""
    folder = write(tmp_path)
    with (folder / "predictions.jsonl").open("wb") as file:
        file.write(start)
        for _ in range(100):
            file.write(b"1," * 2**19)
    tracemalloc.start()
    try:
        found = scored(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused(found)
    assert "predictions.jsonl, line 1 is longer than 16,777,216 bytes" in found.err
    assert peak < 3 * LINE_LIMIT


def test_deep_nesting_and_long_numbers_are_refused() -> None:
    """JSON that Python cannot take is refused as any other."""
    for line in (b"[" * 10**6, b'{"annotation_id": ' + b"1" * 10**5 + b"}", b'{"a": ' * 10**5):
        assert refused(answer(given=line))
