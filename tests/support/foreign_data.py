"""Data folders as other people's programs leave them, made by Hypothesis together with what they truly hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bench.registry import TASKS

SECRET = "SECRET"  # noqa: S105 - a word
"""In every text, so that a message that quotes one gives itself away."""

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), max_size=6)
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Columns:
    """A task's columns in each layout."""

    tsv: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()


COLUMNS = {
    "sst2": Columns(("sentence", "label"), ("sentence", "label")),
    "mrpc": Columns(("#1 String", "#2 String", "Quality"), ("sentence1", "sentence2", "label")),
    "stsb": Columns(("sentence1", "sentence2", "score"), ("sentence1", "sentence2", "label")),
    "hatexplain": Columns(hub=("post_tokens", "annotators")),
}
"""Task -> its text, its second text, its label."""


@dataclass
class Truth:
    """What a folder holds: rows of texts, and of a label each; and whether it may be refused, must be, or must not."""

    task: str
    texts: list[tuple[str, ...]]
    labels: list[float]
    sound: bool | None = True

    def spoil(self, *, surely: bool = True) -> None:
        """Note a damage."""
        self.sound = False if surely or self.sound is False else None

    @property
    def names(self) -> Sequence[str]:
        """The task's classes."""
        return TASKS[self.task].labels


def rows(draw: Draw) -> Truth:
    """Rows with different texts."""
    task = draw(st.sampled_from(sorted(COLUMNS)))
    count = draw(st.integers(1, 12))
    parts = 2 if task in ("mrpc", "stsb") else 1
    texts = [tuple(f"{SECRET} a{row} {draw(PLAIN)}." for _ in range(parts)) for row in range(count)]
    if task == "stsb":
        return Truth(task, texts, [draw(st.integers(0, 20)) / 4 for _ in range(count)])
    classes = len(TASKS[task].labels)
    return Truth(task, texts, [draw(st.integers(0, classes - 1)) for _ in range(count)])


def write_label(draw: Draw, truth: Truth, label: float) -> str:
    """A label in words or digits; some are no label."""
    if truth.task == "stsb":
        forms = [str(label), f"{label:.3f}", f" {label}"]
        wrong = ["", "5.01", "-1", "nan", "inf", "1_0", "high", "9" * 5000, "True"]
    else:
        name = truth.names[int(label)]
        forms = [f"{label:g}", name, name.upper(), name.replace("_", " ").title(), f"{label:g} ", f"{label:.1f}"]
        wrong = [
            "",
            "-1",
            "3",
            "0.5",
            "nan",
            "True",
            "false",
            "9" * 5000,
            "nonesuch",
            f"{SECRET} in the wrong column of it",
        ]
    if draw(st.integers(0, 60)) == 0:
        truth.spoil()
        return str(draw(st.sampled_from(wrong)))
    return str(draw(st.sampled_from(forms)))


def tab_separated(draw: Draw, truth: Truth, base: Path) -> None:
    """GLUE's layout."""
    columns = list(COLUMNS[truth.task].tsv)
    lines = [[*texts, write_label(draw, truth, label)] for texts, label in zip(truth.texts, truth.labels, strict=True)]
    header = draw(
        st.sampled_from([columns] * 24 + [columns[:1], [*columns, columns[-1]], lines[0], [*columns, "more"]])
    )
    if header is not columns:
        truth.spoil()
    end = draw(st.sampled_from(["\n"] * 9 + ["\r\n", "\r\n", "\r\r\n", "\r"]))
    if end == "\r":
        truth.spoil()
    text = "".join("\t".join(line) + end for line in [header, *lines])
    text = disturb(draw, truth, text)
    encoding = draw(st.sampled_from(["utf-8"] * 15 + ["utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "cp037"]))
    if not encoding.startswith("utf-8"):
        truth.spoil()
    data = text.encode(encoding, "replace")
    (base / "train.tsv").write_bytes(replace(draw, truth, data))


def disturb(draw: Draw, truth: Truth, text: str) -> str:
    """The same text, rarely with something in it that belongs nowhere."""
    kind = draw(st.sampled_from([""] * 24 + ["no end", "blank", "nul", "tab", "return", "cut"]))
    if kind == "no end":
        return text.rstrip("\r\n") if truth.sound else text
    if kind:
        truth.spoil()
    middle = text.find(SECRET)
    odd = {"blank": "\n\n", "nul": "\0", "tab": "\t", "return": "x\ty\r"}
    if kind == "cut":
        return text[:middle]
    return text[:middle] + odd.get(kind, "") + text[middle:]


def replace(draw: Draw, truth: Truth, data: bytes) -> bytes:
    """A file's bytes, rarely what lies in its place after a download that went wrong."""
    strange = {
        "gzip": gzip.compress(data),
        "page": b"<!DOCTYPE html>\n<html><title>SECRET 404</title></html>\n",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "empty": b"",
        "zip": b"PK\x03\x04" + data,
        "invalid": data[:-1] + b"\xff",
    }
    kind = draw(st.sampled_from([""] * 60 + sorted(strange)))
    if kind:
        truth.spoil()
    return strange.get(kind, data)


def json_lines(draw: Draw, truth: Truth, base: Path) -> None:
    """An object per line, some of which hold what a table cannot."""
    lines = []
    for row, (texts, label) in enumerate(zip(truth.texts, truth.labels, strict=True)):
        name: object = draw(st.sampled_from([f"p{row}", row, f"ü {row}"]))
        value = draw(st.sampled_from([int(label), truth.names[int(label)], truth.names[int(label)].title()]))
        line = json.dumps({"post_id": name, "text": texts[0], "label": value, "more": [row]}, ensure_ascii=False)
        lines.append(oddity(draw, truth, line) if draw(st.integers(0, 25)) == 0 else line)
    if len(lines) > 1 and draw(st.integers(0, 15)) == 0:
        truth.spoil()
        lines[-1] = lines[0]
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    strange = replace(draw, truth, data)
    if strange[:2] == b"\x1f\x8b":  # gzipped lines are read
        strange = data
        truth.sound = None
    (base / "train.jsonl").write_bytes(strange)


def oddity(draw: Draw, truth: Truth, line: str) -> str:
    """A line with something that is no JSON, no text, no id or no label."""
    truth.spoil()
    row = json.loads(line)
    ids: list[object] = [None, True, 1.5, [SECRET], {}, "", " ", "\0", "i" * 5000, float("nan")]
    texts: list[object] = [None, 3, [SECRET], {}, "", "\0", float("inf"), f"{SECRET} \ud800"]
    labels: list[object] = [None, True, -1, 3, 10**400, float("nan"), [SECRET], {}, SECRET * 9, "\udfff"]
    columns: dict[str, list[object]] = {"post_id": ids, "text": texts, "label": labels, "\ud83d": [1]}
    values = [(key, value) for key, column in columns.items() for value in column]
    key, value = draw(st.sampled_from(values))
    strange = [
        json.dumps({**row, key: value}),
        line[:-1] + ', "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        line[:-1] + ', "deep": ' + '{"a":' * 990,
        line[:-1] + ', "digits": ' + "9" * 5000 + "}",
        line[:-1] + ', "text": "twice"}',
        line[:-1],
        f"[{line}]",
        "null",
        line.replace('"text"', '"txt"'),
        line[:-1] + ', "half": "\ud83d"}',
        line + "\r" + line,
    ]
    return str(draw(st.sampled_from([strange[0]] * 12 + strange)))
