"""The record of one run: a `Record` (record.json) and a table of examples (examples.parquet).

The table has one row per evaluated example and these columns (`EXAMPLE_COLUMNS`); every derived number is
computed from it by a metric, so a record holds no statistic that cannot be recomputed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from bench.errors import InputError
from bench.store.json_files import misfit, shorten

FLOPS_CONVENTION = (
    "1 multiply-add = 2 FLOPs; dense layers and attention products; unpadded length; analytic, equal to two counters"
)
"""The one convention of every FLOPs figure in a record, a table or a plot."""

TORCH = "torch"
"""Name of the backend that models are trained with: the answers and times of others are held against its."""

HUGGING_FACE = "hf-"
"""Beginning of the names of backends that run Hugging Face's own implementation of the full model."""

EXAMPLE_COLUMNS: Mapping[str, str] = {
    "example_id": "string: the example's name in its split",
    "text_id": "string: the id of the text that the example is, or is a window of",
    "label": "int64: gold class (float64 in a regression: gold score)",
    "prediction": "int64: predicted class (float64 in a regression: predicted score)",
    "correct": "bool: prediction == label (null in a regression)",
    "probabilities": "list<float64>: softmax of the final logits, C entries (empty in a regression)",
    "length": "int64: word pieces entering layer 0, [CLS] and [SEP] included, padding excluded",
    "exit_depth": "int64: layers run before the answer, 1..N",
    "tokens": "list<int64>: live tokens in each of the N layers (0 after the exit)",
    "heads": "list<int64>: attention heads used in each layer (0 after the exit)",
    "neurons": "list<int64>: feed-forward neurons used in each layer (0 after the exit)",
    "flops": "int64: FLOPs of this forward pass (FLOPS_CONVENTION)",
    "reference_flops": "int64: FLOPs of the full model on the same unpadded example",
    "released_flops": "int64: FLOPs as the method's authors count them, where that differs; else flops",
    "released_reference_flops": "int64: the full model's by the same count",
    "seconds": "list<float64>: wall-clock latency of each timed round at batch 1, seconds (empty: not timed)",
    "reference_seconds": "list<float64>: the full model's latency on the example in the same rounds, seconds",
    "event_seconds": "list<float64>: CUDA-event time of the same timed rounds, seconds (empty on a CPU)",
}


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        run_id: content hash of the specification, the data and the trained model.
        created: UTC time of completion, ISO 8601.
        task, method: registry names.
        knobs: the method's knob values.
        preset, backbone, seed: what was trained.
        options: training options in force, by stage.
        artifacts: stage name -> artifact id of the models that were used.
        training: stage name -> "heldout_scores" of its epochs and "history", what it watched while training.
        data: split name, rows, training rows, how many of the rows are among those (`bench.data.overlap`),
            fingerprints, whether it is synthetic.
        metrics: point values of the task's declared metrics on the evaluation split.
        heldout: the same metrics and "flops_speedup" on the held-out slice of the training split (for selection).
        timing: protocol read back (device, threads, rounds, warm-up, clock, session id, examples timed).
        environment: what was in force (device name, dtype, kernel, versions, commit).
        layers: number of encoder layers N of the backbone.
        shown: how a few examples begin, each with its word "pieces" and, for each, the "layers" it was live in; never
            of a sensitive task. The store keeps them in a file of their own, so that a run can do without.
        backend: registry name of what computed the answers.
        control_of: the method that this run is a control for, empty for others: a control is not chosen.
        digests: file beside the record -> its SHA-256, and the record's own; none in those of earlier versions.
    """

    run_id: str
    created: str
    task: str
    method: str
    knobs: Mapping[str, object]
    preset: str
    backbone: str
    seed: int
    options: Mapping[str, Mapping[str, Any]]
    artifacts: Mapping[str, str]
    training: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    metrics: Mapping[str, float]
    heldout: Mapping[str, float]
    timing: Mapping[str, Any]
    environment: Mapping[str, Any]
    layers: int
    shown: Sequence[Mapping[str, Any]] = ()
    backend: str = TORCH
    control_of: str = ""
    flops_convention: str = FLOPS_CONVENTION
    digests: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """The arm's name in tables and legends, for example `entropy_exit exit_threshold=0.3`."""
        return arm_label(self.method, self.knobs, self.backend)

    def to_json(self) -> str:
        """Return the record as one JSON object, keys in field order."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read back `to_json`.

        Raises:
            InputError: the text is no JSON object, or no record of a version that this one knows.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a JSON record: {error}; was the file edited by hand?") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Any) -> Record:
        """Make a record of what its JSON holds.

        Raises:
            InputError: it is no object, lacks a field or has another one, or a value is of another kind.
        """
        if not isinstance(values, dict):
            raise InputError(f"not a run's record: it is {shorten(values)}, not an object")
        odd = sorted({*values} - {*_KINDS} | _EVERY_VERSION - {*values})
        if odd:
            shown = ", ".join(shorten(name) for name in odd)
            raise InputError(
                f"not a run's record: missing or unknown fields {shown}; it was written by another version"
            )
        if problem := next(filter(None, _misfits(values)), None):
            raise InputError(f"not a run's record: {problem}")
        _require_sound(values)
        return cls(**values)


def arm_label(method: str, knobs: Mapping[str, object], backend: str) -> str:
    """Name an arm: `entropy_exit exit_threshold=0.3`, and where not in PyTorch ` on onnxruntime`."""
    words = [method, *(f"{name}={value}" for name, value in knobs.items())]
    return " ".join([*words, *([] if backend == TORCH else ["on", backend])])


_KINDS: Mapping[str, Any] = get_type_hints(Record)
"""Field of a record -> its kind."""

_EVERY_VERSION = {"shown", "control_of", "flops_convention"} | {
    each.name
    for each in dataclasses.fields(Record)
    if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
}
"""Fields that were there from the start; a later one has a default, and may be missing."""

_INNER: Mapping[str, Any] = {
    "data.rows": int,
    "data.split": str,
    "data.train_rows": int,
    "data.heldout_rows": int,
    "data.dropped_rows": int,
    "data.max_length": int,
    "data.finetune_seed": int,
    "data.synthetic": bool,
    "data.fingerprints": Mapping[str, str],
    "timing.device": str,
    "timing.session": str,
    "timing.threads": int,
    "timing.rounds": int,
    "timing.examples": int,
    "environment.versions": Mapping[str, str],
    "environment.backbone_identity": str,
}
"""Entry of a record's field -> its kind, where there is one; what reports read."""


def _misfits(values: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield what is wrong with each field, and then with each entry that reports read."""
    yield from (misfit(values[name], kind, name) for name, kind in _KINDS.items() if name in values)
    yield from (_misfit_at(values, path, kind) for path, kind in _INNER.items())


def _misfit_at(values: Mapping[str, Any], path: str, kind: Any) -> str | None:
    name, _, entry = path.partition(".")
    return misfit(values[name][entry], kind, path) if entry in values[name] else None


def _require_sound(values: Mapping[str, Any]) -> None:
    """Check what the kinds of a record's fields do not say.

    Raises:
        InputError: it counts FLOPs in another way, is of no layer or of no rows, or holds what JSON should not.
    """
    convention = values["flops_convention"]
    if convention != FLOPS_CONVENTION:
        raise InputError("not a record of this version: its flops_convention is another, so its FLOPs are no match")
    if not values["layers"] or "rows" not in values["data"]:
        raise InputError("not a run's record: it has no layers, or its data no rows")
    try:
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise InputError(f"not a run's record: {error}") from error
