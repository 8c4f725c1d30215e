"""Synthetic runs with numbers known beforehand, written to a run store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.tables.frames import Runs
from bench.store.records import TORCH, Record
from bench.store.runs import RunStore
from bench.store.stored_examples import EXAMPLE_SCHEMA

LAYERS = 6
TOKENS = 10
FLOPS_PER_LAYER = 1_000_000_000
DEVICE = "Test CPU, 2 threads"


@dataclass(frozen=True)
class StoredRun:
    """What a synthetic run is made of.

    Attributes:
        run_id, method, knobs, task, seed: as in a record.
        wrong: example numbers answered wrongly.
        depths: exit depth of each example, repeated to fill; cost and latency are proportional to it.
        examples: how many.
        timed: how many of them, from the first, hold latencies.
        rounds: latencies per timed example.
        overhead: seconds added to every forward pass of 1 ms per layer.
        data: of a record, beside the split, the rows and whether it is synthetic.
        kept: fraction of the tokens that each layer runs on.
        eta: thresholds of each layer at each watched step of a stage named after the method.
        shown, control_of: as in a record.
        heads: of each layer, an entry for each example, repeated to fill; 2 are all.
        windows: examples of each text.
        stages: artifacts beside those of the fine-tuning and of a stage named after the method.
        backend, preset: as in a record.
        timing: of a record, beside the device, two threads, the rounds and the batch size.
    """

    run_id: str
    method: str = "full"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    task: str = "demo"
    seed: int = 1
    wrong: Iterable[int] = ()
    depths: Sequence[int] = (LAYERS,)
    examples: int = 40
    timed: int = 20
    rounds: int = 3
    overhead: float = 0.0
    device: str = DEVICE
    heldout: Mapping[str, float] = field(default_factory=lambda: {"accuracy": 0.9, "flops_speedup": 1.0})
    synthetic: bool = True
    environment: Mapping[str, Any] = field(default_factory=lambda: {"torch": "2.13.0", "dtype": "float32"})
    backbone: str = "tiny-bert"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"finetune": {"epochs": 1}})
    data: Mapping[str, Any] = field(default_factory=dict)
    kept: Sequence[float] = (1.0,) * LAYERS
    eta: Sequence[Sequence[float]] = ()
    shown: Sequence[Mapping[str, Any]] = ()
    control_of: str = ""
    heads: Sequence[Sequence[int]] = ((2,) * LAYERS,)
    windows: int = 1
    stages: Mapping[str, str] = field(default_factory=dict)
    backend: str = TORCH
    preset: str = "quick"
    timing: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """The table of examples: labels alternate 0, 1, and a wrong answer is the other class."""
        wrong, rows = set(self.wrong), self.data.get("rows", self.examples)
        return pa.Table.from_pylist([self._row(number, number in wrong) for number in range(rows)], EXAMPLE_SCHEMA)

    def _row(self, number: int, wrong: bool) -> dict[str, Any]:
        label, depth = number % 2, self.depths[number % len(self.depths)]
        prediction, heads = 1 - label if wrong else label, self.heads[number % len(self.heads)]
        rounds = range(self.rounds if number < self.timed else 0)
        text, window = divmod(number, self.windows)
        return {
            "example_id": f"e{text:05d}" if self.windows == 1 else f"e{text:05d}#{window}",
            "text_id": f"e{text:05d}",
            "label": label,
            "prediction": prediction,
            "correct": not wrong,
            "probabilities": [0.9, 0.1] if prediction == 0 else [0.1, 0.9],
            "length": TOKENS,
            "exit_depth": depth,
            "tokens": [round(TOKENS * kept) for kept in self.kept[:depth]] + [0] * (LAYERS - depth),
            "heads": [*heads[:depth], *[0] * (LAYERS - depth)],
            "neurons": [4 * own for own in heads[:depth]] + [0] * (LAYERS - depth),
            "flops": depth * FLOPS_PER_LAYER,
            "released_flops": depth * FLOPS_PER_LAYER,
            "released_reference_flops": LAYERS * FLOPS_PER_LAYER,
            "reference_flops": LAYERS * FLOPS_PER_LAYER,
            "seconds": [0.001 * depth + self.overhead + 0.00001 * turn for turn in rounds],
            "reference_seconds": [0.001 * LAYERS + 0.00001 * turn for turn in rounds],
            "event_seconds": [],
        }

    def record(self) -> Record:
        """The record that goes with the table."""
        timing: dict[str, Any] = {"device": self.device, "threads": 2, "rounds": self.rounds, "batch_size": 1}
        history = {"step": list(range(len(self.eta))), "eta": [list(moment) for moment in self.eta]}
        learned = {self.method: {"heldout_scores": [0.9], "history": history}} if self.eta else {}
        return Record(
            run_id=self.run_id,
            created="2026-01-02T03:04:05+00:00",
            task=self.task,
            method=self.method,
            knobs=dict(self.knobs),
            preset=self.preset,
            backbone=self.backbone,
            seed=self.seed,
            backend=self.backend,
            options=dict(self.options),
            artifacts={"finetune": f"finetune-{self.seed}", self.method: f"{self.method}-{self.seed}", **self.stages},
            training={"finetune": {"heldout_scores": [0.5, 0.75], "history": {}}, **learned},
            data={"split": "validation", "rows": self.examples, "synthetic": self.synthetic, **self.data},
            metrics={"accuracy": 1 - len(set(self.wrong)) / self.data.get("rows", self.examples)},
            heldout=dict(self.heldout),
            timing={**timing, **self.timing} if self.timed else {},
            environment=dict(self.environment),
            layers=LAYERS,
            shown=list(self.shown),
            control_of=self.control_of,
        )


def write_runs(root: Path, *runs: StoredRun) -> tuple[RunStore, list[str]]:
    """Write runs to a store below `root`; the store and their ids."""
    store = RunStore(root)
    for run in runs:
        store.put(run.record(), run.table())
    return store, [run.run_id for run in runs]


def forget_digests(store: RunStore, run_id: str) -> None:
    """Make a stored run one of an early version, whose records have no digests."""
    path = store.folder(run_id) / store.marker
    values = json.loads(path.read_text(encoding="utf8"))
    del values["digests"]
    path.write_text(json.dumps(values), encoding="utf8")


def read_runs(root: Path, *runs: StoredRun) -> Runs:
    """Write runs and read them back."""
    store, ids = write_runs(root, *runs)
    return Runs.read(store, ids)


def sweep(*, seed: int = 1, task: str = "demo") -> list[StoredRun]:
    """The full model, an entropy-exit curve of four points and a token-dropping curve of three."""
    full = StoredRun(f"{task}-full-{seed}", task=task, seed=seed, wrong=range(4))
    exits = [
        (0.1, (6, 5), range(4), 0.90, 1.1),
        (0.3, (6, 3), range(4), 0.895, 1.4),
        (0.5, (4, 2, 3), range(5), 0.893, 2.0),
        (0.8, (2, 1), range(9), 0.80, 3.9),
    ]
    drops = [(0.01, (5, 6), range(3), 0.91, 1.1), (0.02, (4,), range(5), 0.89, 1.5), (0.03, (3,), range(7), 0.84, 2.0)]
    found = [full]
    for knob, depths, wrong, accuracy, speedup in exits:
        found.append(
            replace(
                full,
                run_id=f"{task}-exit-{knob}-{seed}",
                method="entropy_exit",
                knobs={"exit_threshold": knob},
                depths=depths,
                wrong=wrong,
                heldout={"accuracy": accuracy, "flops_speedup": speedup},
                overhead=0.0005,
            )
        )
    for knob, depths, wrong, accuracy, speedup in drops:
        found.append(
            replace(
                full,
                run_id=f"{task}-drop-{knob}-{seed}",
                method="adapler",
                knobs={"drop_threshold": knob},
                depths=depths,
                wrong=wrong,
                heldout={"accuracy": accuracy, "flops_speedup": speedup},
                overhead=0.001,
            )
        )
    return found


def subnets(*, seed: int = 1) -> list[StoredRun]:
    """The full model, four subnets trained with grafting and without, and gates that are one answer better."""
    full = StoredRun(f"full-{seed}", seed=seed, wrong=range(4))
    family: dict[str, Any] = {"yes": {"seed": seed, "stages": {"final": "f"}}}
    family["no"] = {"seed": seed, "stages": {"final": "ungrafted"}}
    found = [full]
    for graft, more in (("yes", 0), ("no", 1)):
        for width, heads in ((0.5, 1), (1.0, 2)):
            for depth in (3, 6):
                wrong = range(4 + more * (width < 1) + 2 * (width < 1) + (depth < 6))
                knobs = {"graft": graft, "width_mult": f"{width:g}", "depth_mult": depth / LAYERS}
                name = f"static-{graft}-{width:g}-{depth}-{seed}"
                layers = ((heads,) * LAYERS,)
                held = {"accuracy": 1 - len(wrong) / full.examples, "flops_speedup": 1.0}
                look: dict[str, Any] = {"depths": (depth,), "heads": layers, "heldout": held, **family[graft]}
                found.append(StoredRun(name, "static_subnet", knobs, wrong=wrong, **look))
    return [*found, gates(**family["yes"])]


def gates(*, graft: str = "yes", seed: int = 1, **more: Any) -> StoredRun:
    """Gates over subnets."""
    knobs = {"graft": graft, "num_gates": 0, "width_mult_list": "0.5,1"}
    choices: dict[str, Any] = {"depths": (3, 4), "heads": [(1,) * LAYERS, (1, 1, 2, 2, 2, 2)]}
    return StoredRun(f"gates-{graft}-{seed}", "width_gates", knobs, wrong=range(4), **choices, seed=seed, **more)
