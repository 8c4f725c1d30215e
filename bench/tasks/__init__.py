"""Tasks, one file each: where the data lies, what its columns mean and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.errors import InputError


@dataclass(frozen=True)
class Tsv:
    """A task's files in GLUE's tab-separated layout (quoting off).

    Attributes:
        files: split -> file name, for example {"train": "train.tsv", "validation": "dev.tsv"}.
        text, pair, label: names in the header row; a label is a class's number or its name.
        header: the column names of files that have no header row.
        named: classes are written by name (RTE), not by number (SST-2); so GLUE expects its predictions.
        broken: the published files hold a few rows with missing or empty fields; those of a split with labels are left
            out, those of a split without are answered as they are.
    """

    files: Mapping[str, str]
    text: str
    label: str
    pair: str | None = None
    header: Sequence[str] = ()
    named: bool = False
    broken: bool = False


@dataclass(frozen=True)
class JsonLines:
    """A task's files with one JSON object per line.

    Attributes:
        files: split -> file name.
        text, label, example_id: names of fields, all strings.
    """

    files: Mapping[str, str]
    text: str
    label: str
    example_id: str


@dataclass(frozen=True)
class Task:
    """A data set whose texts, or pairs of texts, have a class or, with `scores`, a real-valued score.

    Attributes:
        name: registry name, as typed.
        summary: one line for listings.
        source: citation.
        labels: class names, in the order of their numbers; the name of the score in a regression.
        metrics: names of quality metrics; the first one selects models.
        max_length: default number of word pieces, longer inputs are truncated.
        evaluation: the split that is reported on.
        text, pair, label: column names in hub-style data.
        decode: (text, label) of a hub-style row -> (text, label), where the columns hold something else.
        scores: lowest and highest score; makes the task a regression.
        hub: (repository, folder of its parquet files) on the data hub, None where there is none. The repository may
            end in @revision; a revision made by the hub's converter has a folder per split.
        folder: the folder below `--data-dir`, which may be that folder itself or any of its parents.
        tsv: the GLUE layout, where the task has one.
        json_lines: the layout with a JSON object per line, where the task has one.
        eraser: the data also comes in ERASER's layout: documents and annotations.
        rationales: the folder below `--data-dir` with people's rationales in ERASER's layout, where there is one.
        sensitive: no page shows its texts unless it is asked to.
        windows: a text that is longer than `max_length` becomes several examples instead of being truncated.
        phrases: training rows are phrases of one another; whole sentences are held out for model selection.
        unlabelled: splits without labels -> the file that GLUE's leaderboard takes for the predictions.
        elsewhere: splits that are another data set's: split -> (where it lies, its split there).
        generate: seed -> split -> rows, for a synthetic task; a row is {"example_id", "text", "label", ...}.

    Raises:
        InputError: fewer than two classes without `scores`, several with them, or windows of pairs.
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
    decode: Callable[[Any, Any], tuple[object, object]] | None = field(default=None, repr=False)
    scores: tuple[float, float] | None = None
    hub: tuple[str, str] | None = None
    folder: str = ""
    tsv: Tsv | None = None
    json_lines: JsonLines | None = None
    eraser: bool = False
    rationales: str = ""
    sensitive: bool = False
    windows: bool = False
    phrases: bool = False
    unlabelled: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[Task, str]] = field(default_factory=dict)
    generate: Callable[[int], Mapping[str, Sequence[Mapping[str, Any]]]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.scores is None and len(set(self.labels)) < 2:
            raise InputError(
                f"task {self.name!r} has the classes {list(self.labels)}, but a classification needs two or more; "
                f"for a real-valued score give scores=(lowest, highest)"
            )
        if self.scores is not None and len(self.labels) != 1:
            raise InputError(f"task {self.name!r} has scores, so its labels are one name, not {list(self.labels)}")
        if self.windows and self.pair is not None:
            raise InputError(f"task {self.name!r} has pairs, but windows are cut from single texts; drop windows")

    @property
    def synthetic(self) -> bool:
        """Whether the project made the data itself; said wherever the task's numbers appear."""
        return self.generate is not None

    @property
    def regression(self) -> bool:
        """Whether the answer is a real-valued score."""
        return self.scores is not None

    @property
    def problem_type(self) -> str:
        """Transformers' name for the kind of answer: it decides what a pipeline makes of the logits."""
        return "regression" if self.regression else "single_label_classification"
