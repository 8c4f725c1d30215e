"""What one run leaves behind: a `Record` (record.json) and a table of examples (examples.parquet).

The table has one row per evaluated example and these columns (`EXAMPLE_COLUMNS`); every derived number is
computed from it by a metric, so a record holds no statistic that cannot be recomputed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import InputError

FLOPS_CONVENTION = (
    "1 multiply-add = 2 FLOPs; dense layers and attention products; unpadded length; analytic, equal to two counters"
)
"""The one convention of every FLOPs figure in a record, a table or a plot."""

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
        data: split name, rows, training rows, how many of the rows are among those (`bench.overlap`), fingerprints,
            whether it is synthetic.
        metrics: point values of the task's declared metrics on the evaluation split.
        heldout: the same metrics and "flops_speedup" on the held-out slice of the training split (for selection).
        timing: protocol read back (device, threads, rounds, warm-up, clock, session id, examples timed).
        environment: what was in force (device name, dtype, kernel, versions, commit).
        layers: number of encoder layers N of the backbone.
        shown: how a few examples begin, each with its word "pieces" and, for each, the "layers" it was live in; never
            of a sensitive task. The store keeps them in a file of their own, so that a run can do without.
        control_of: the method that this run is a control for, empty for others: a control is not chosen.
    """

    run_id: str
    created: str
    task: str
    method: str
    knobs: Mapping[str, Any]
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
    control_of: str = ""
    flops_convention: str = FLOPS_CONVENTION

    @property
    def label(self) -> str:
        """The arm's name in tables and legends, for example `entropy_exit exit_threshold=0.3`."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.knobs.items())])

    def to_json(self) -> str:
        """The record as one JSON object, keys in field order."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read back `to_json`.

        Raises:
            InputError: the text is no JSON object or has other fields than a record.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not a JSON record: {error}; was the file edited by hand?") from error
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            odd = sorted(set(values) ^ names) if isinstance(values, dict) else type(values).__name__
            raise InputError(f"not a run's record: missing or unknown fields {odd}; it was written by another version")
        for field in dataclasses.fields(cls):
            kind = {"str": str, "int": int, "Sequence[Mapping[str, Any]]": list}.get(str(field.type), dict)
            if not isinstance(values[field.name], kind):
                raise InputError(
                    f"not a run's record: {field.name} is {values[field.name]!r}, but it is a {kind.__name__}"
                )
        return cls(**values)
