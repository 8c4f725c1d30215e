"""Tasks, one file each: where the data lies, what its columns mean and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Tsv:
    """A task's files in GLUE's tab-separated layout (quoting off, header row).

    Attributes:
        files: split -> file name, for example {"train": "train.tsv", "validation": "dev.tsv"}.
        text, pair, label: names in the header row; a label is a class's number or its name.
    """

    files: Mapping[str, str]
    text: str
    label: str
    pair: str | None = None


@dataclass(frozen=True)
class Task:
    """A classification data set.

    Attributes:
        name: registry name, as typed.
        summary: one line for listings.
        source: citation.
        labels: class names, in the order of their numbers.
        metrics: names of quality metrics; the first one selects models.
        max_length: default number of word pieces, longer inputs are truncated.
        evaluation: the split that is reported on.
        text, pair, label: column names in hub-style data.
        hub: (repository, configuration) on the data hub, None where there is none.
        folder: the folder below `--data-dir`, which may be that folder itself or any of its parents.
        tsv: the GLUE layout, where the task has one.
        phrases: training rows are phrases of one another; whole sentences are held out for model selection.
        generate: seed -> split -> rows, for a synthetic task; a row is {"example_id", "text", "label", ...}.
    """

    name: str
    summary: str
    source: str
    labels: Sequence[str]
    metrics: Sequence[str]
    max_length: int
    evaluation: str = "validation"
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    hub: tuple[str, str] | None = None
    folder: str = ""
    tsv: Tsv | None = None
    phrases: bool = False
    generate: Callable[[int], Mapping[str, Sequence[Mapping[str, Any]]]] | None = field(default=None, repr=False)

    @property
    def synthetic(self) -> bool:
        """Whether the project made the data itself; said wherever the task's numbers appear."""
        return self.generate is not None
