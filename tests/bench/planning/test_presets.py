"""Presets name what exists, and a task's own values replace the preset's."""

from __future__ import annotations

import pytest

from bench.planning.presets import PRESETS, Preset
from bench.registry import METHODS, TASKS, all_knobs, stages_of

KNOBS = {knob.name: knob for method in METHODS.values() for knob in all_knobs(method)}
OPTIONS = {
    f"{stage.name}.{knob.name}": knob
    for method in METHODS.values()
    for stage in stages_of(method)
    for knob in stage.options
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_what_exists(name: str) -> None:
    """Tasks, stage options and knobs are known, and their values are of the knob's type and within its bounds."""
    preset = PRESETS[name]
    assert set(preset.tasks) <= set(TASKS)
    for task in ("demo", *preset.tasks):
        found = preset.on(task)
        for known, given in ((OPTIONS, found.options), (KNOBS, found.knobs)):
            assert {key: repr(known[key].parse(value)) for key, value in given.items()} == {
                key: repr(value) for key, value in given.items()
            }


def test_a_task_may_differ() -> None:
    """Names with a dot are options of stages, the others knobs; what a task does not name stays as it is."""
    preset = Preset(
        name="p", summary="s", backbone="b",
        options={"finetune.epochs": 3, "finetune.rdrop": 0.0}, knobs={"phi": 0.1, "gamma": 0.2},
        tasks={"sst2": {"finetune.rdrop": 1.0, "phi": 0.5}},
    )  # fmt: skip
    assert preset.on("sst2").options == {"finetune.epochs": 3, "finetune.rdrop": 1.0}
    assert preset.on("sst2").knobs == {"phi": 0.5, "gamma": 0.2}
    assert preset.on("demo") == preset
