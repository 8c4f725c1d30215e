"""Presets: a backbone, training options and sizes that go together. Flags override them one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.errors import InputError

if TYPE_CHECKING:
    from efficient_bert.knobs import Value


@dataclass(frozen=True)
class Preset:
    """Values for what the command line does not give.

    Attributes:
        name, summary: for listings.
        backbone: as for `--backbone`.
        options: "<stage>.<option>" -> value, where it differs from the stage's default.
        knobs: knob -> value, where it differs from the knob's own points.
        tasks: task -> what differs on it alone, under the same names.
        train_rows, eval_rows: limits, None = all rows.
        latency_examples, rounds: size of the timing session.
        trial: whether it only tries the commands: models learn too little for their numbers to mean anything.
    """

    name: str
    summary: str
    backbone: str
    options: Mapping[str, Value] = field(default_factory=dict)
    knobs: Mapping[str, Value] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    train_rows: int | None = None
    eval_rows: int | None = None
    latency_examples: int = 200
    rounds: int = 3
    trial: bool = False

    def on(self, task: str) -> Preset:
        """Return the preset with the values that differ on a task."""
        changes = self.tasks.get(task, {})
        options = {name: value for name, value in changes.items() if "." in name}
        knobs = {name: value for name, value in changes.items() if "." not in name}
        return replace(self, options={**self.options, **options}, knobs={**self.knobs, **knobs})


def options_of(*stages: str, **options: Value) -> dict[str, Value]:
    """Return the same training options for several stages: "<stage>.<option>" -> value."""
    return {f"{stage}.{name}": value for stage in stages for name, value in options.items()}


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="quick",
            summary="the packaged MiniLM backbone, all training rows, few epochs",
            backbone="minilm",
            options={
                "finetune.epochs": 3,
                "finetune.learning_rate": 1e-4,
                "truncate.epochs": 3,
                "truncate.learning_rate": 1e-4,
                "width.learning_rate": 1e-4,
                "depth.learning_rate": 1e-4,
                "final.learning_rate": 5e-5,
                "adapler.epochs": 3,
                "adapler.learning_rate": 5e-5,
                "adapler.threshold_rate": 5e-3,
                "adapler.predictor_rate": 1e-3,
            },
            knobs={"gamma": 0.02, "phi": 0.005},
            # chosen on held-out training rows, see docs/decisions/2026-training.md
            tasks={
                "sst2": {"phi": 1e-3, **options_of("finetune", "truncate", epochs=2, adversarial=1.0, ema=0.998)},
                "imdb": {"phi": 1e-4},
                "movies": {"phi": 4e-4},
                "demo": {"finetune.epochs": 2, "finetune.keep_epochs": 1},  # learnt by then; a demo is short
            },
        ),
        Preset(
            name="paper",
            summary="bert-base-uncased with the releases' hyper-parameters (needs a model hub; practical on a GPU)",
            backbone="google-bert/bert-base-uncased",
            # Where they differ from the stages' defaults. Modarressi et al., ACL 2022: AdapLeR starts from the
            # pretrained model. Hu et al., IJCNN 2023: gates of the smallest tasks learn longer, so do RTE's subnets.
            options={"adapler.start": "backbone", "gates.epochs": 3},
            knobs={"gamma": 0.005, "phi": 0.0005},
            tasks={
                "cola": {"gates.epochs": 8},
                "mrpc": {"gates.epochs": 8},
                "rte": {"gates.epochs": 8, "width.epochs": 8, "depth.epochs": 8},
            },
        ),
        Preset(
            name="smoke",
            summary="the packaged backbone on a few dozen rows, in seconds: does everything run?",
            backbone="minilm",
            options={
                "rewire.importance_rows": 64,
                "width.importance_rows": 64,
                **options_of("finetune", "truncate", "adapler", "width", "depth", "final", "gates", epochs=1),
            },
            train_rows=96,
            eval_rows=32,
            latency_examples=4,
            rounds=2,
            trial=True,
        ),
    )
}


def trial_warning(name: str) -> str:
    """Say of a run's preset that its numbers mean nothing; empty where they do, or where no preset has this name."""
    if name not in PRESETS or not PRESETS[name].trial:
        return ""
    return f"preset {name} trains on a few dozen rows, to try the commands: its numbers mean nothing"


def find_preset(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
