"""What a user sets for a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efficient_bert.knobs import Value


LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Timing:
    """The size of a timing session.

    Attributes:
        examples: timed reported rows at most.
        rounds: samples per arm and example.
        throughput: whether examples per second are measured too.
    """

    examples: int
    rounds: int
    throughput: bool = False

    def __bool__(self) -> bool:
        """Say whether anything is timed."""
        return self.examples > 0 and self.rounds > 0


@dataclass(frozen=True)
class Settings:
    """The user's settings; None or nothing leaves a value to the preset, the task or the method.

    Attributes:
        task: registry name.
        methods: registry names; those of the suite where none is given. The full model always runs beside them.
        knobs: knob name -> values to measure.
        options: "<stage>.<option>" -> value.
        backends: registry names; PyTorch alone where none is given. The full model runs on each, and always in PyTorch.
        preset, backbone, data_dir, seed, device: as on the command line; device is "cpu" or "cuda".
        finetune_seed: seed of the held-out split and of fine-tuning, `seed` unless given.
        split: reported on instead of the task's own.
        max_length: word pieces.
        train_rows, eval_rows: limits.
        latency_examples, rounds: size of the timing session; 0 examples times nothing.
        throughput: measure examples per second too.
        store: folder that holds runs/, artifacts/ and explained/.
        fresh: do again what is finished.
        time_again: time stored runs again, with the models that they were evaluated with.
        until: the stage that is trained, with those before it; by default every method's own.
    """

    task: str
    methods: tuple[str, ...] = ()
    knobs: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)
    backends: tuple[str, ...] = ()
    preset: str = "quick"
    backbone: str | None = None
    data_dir: Path | None = None
    seed: int = 0
    finetune_seed: int | None = None
    device: str = "cpu"
    split: str | None = None
    max_length: int | None = None
    train_rows: int | None = None
    eval_rows: int | None = None
    latency_examples: int | None = None
    rounds: int | None = None
    throughput: bool = False
    store: Path = Path()
    fresh: bool = False
    time_again: bool = False
    until: str | None = None

    @property
    def first_seed(self) -> int:
        """Seed of the held-out split and of fine-tuning."""
        return self.seed if self.finetune_seed is None else self.finetune_seed
