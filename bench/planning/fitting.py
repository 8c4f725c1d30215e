"""Check values before training: knobs and options against their bounds and against the model.

One refusal names all that is wrong, so that nobody has to try again for each value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.registry import all_knobs, stages_of

if TYPE_CHECKING:
    from bench.planning.plan import Arm
    from bench.planning.settings import Settings
    from efficient_bert import EfficientBertConfig
    from efficient_bert.knobs import Knob, Value
    from efficient_bert.methods import Method
    from efficient_bert.training import Stage

MOST = 6
"""Reasons that one line names."""


def refusals(*checks: Callable[[], object]) -> list[str]:
    """Return the messages of checks that fail, each once."""
    from efficient_bert import InputError as UnfitError

    messages = []
    for check in checks:
        try:
            check()
        except UnfitError as error:
            messages.append(str(error))
    return list(dict.fromkeys(messages))


@dataclass(frozen=True)
class Misfit:
    """Why one point of a method does not fit the model: `untrained` where already its stages do not."""

    reasons: tuple[str, ...]
    untrained: bool


@dataclass(frozen=True)
class Points:
    """The points of a method: those that fit, and those that do not."""

    method: Method
    arms: tuple[Arm, ...]
    misfits: tuple[Misfit, ...]

    def refusal_reasons(self, settings: Settings) -> Iterator[str]:
        """Yield the reasons of misfits among given values; a method's default points may be left out."""
        options = {f"{stage.name}.{knob.name}" for stage in stages_of(self.method) for knob in stage.options}
        by_knob = any(knob.name in settings.knobs for knob in all_knobs(self.method))
        by_option = any(name in settings.options for name in options)
        by_name = not self.arms and self.method.name in settings.methods
        for misfit in self.misfits:
            if by_knob or (by_option and misfit.untrained):
                yield from misfit.reasons
        if by_name:
            yield from self.misfits[0].reasons

    @property
    def omission(self) -> str:
        """Which points are left out and why, empty where none is."""
        if not self.misfits:
            return ""
        counts = f"{len(self.misfits)} of {len(self.misfits) + len(self.arms)} points: " if self.arms else ""
        return counts + "; ".join(self.misfits[0].reasons)


def refuse(reasons: Iterable[str]) -> None:
    """Raise InputError with all the reasons, each once; none is no refusal."""
    distinct = list(dict.fromkeys(reasons))
    if distinct:
        more = f"; and {len(distinct) - MOST} more" if len(distinct) > MOST else ""
        raise InputError("; ".join(distinct[:MOST]) + more)


def parse_values(settings: Settings, stages: Iterable[Stage], knobs: Iterable[Knob]) -> Settings:
    """Return the settings with the values of these knobs and of the stages' options parsed, others as they are.

    Raises:
        InputError: values are none of their knobs; the line names all of them.
    """
    from efficient_bert import InputError as UnfitError

    knob_of = {knob.name: knob for knob in knobs}
    option_of = {f"{stage.name}.{knob.name}": knob for stage in stages for knob in stage.options}
    reasons: list[str] = []

    def parse(knob: Knob | None, given: Value) -> Value:
        try:
            return knob.parse(given) if knob else given
        except UnfitError as error:
            reasons.append(str(error))
            return given

    parsed = replace(
        settings,
        knobs={name: tuple(parse(knob_of.get(name), each) for each in given) for name, given in settings.knobs.items()},
        options={name: parse(option_of.get(name), given) for name, given in settings.options.items()},
    )
    refuse(reasons)
    return parsed


def unfit_reasons(
    stage: Stage,
    config: EfficientBertConfig,
    options: Mapping[str, Mapping[str, Value]],
    vocabulary: Mapping[str, int],
) -> list[str]:
    """Say why the stages up to this one cannot train from a model of this configuration; nothing where they can.

    Args:
        options: of each stage, knobs among them, by the stage's name.
    """
    from efficient_bert import InputError as UnfitError

    messages: list[str] = []
    for each in stage.chain:
        values = options[each.name]
        if messages:  # there is no configuration to check the rest against
            messages += refusals(partial(each.changes, config, values))
            continue
        try:
            each.check(config, values, vocabulary)
            config = config_after_stage(each, config, values)
        except UnfitError as error:
            messages.append(str(error))
    return messages


def config_after_stage(stage: Stage, before: EfficientBertConfig, options: Mapping[str, Value]) -> EfficientBertConfig:
    """Return the configuration of the model that a stage makes."""
    from efficient_bert import EfficientBertConfig

    changes = stage.changes(before, options)
    return EfficientBertConfig.from_bert(before, **changes) if changes else before


def grid(knobs: Sequence[Knob], chosen: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """Return every combination of the chosen values, with a knob's default points where none is chosen."""
    axes = [chosen.get(knob.name, knob.points or [knob.default]) for knob in knobs]
    return [dict(zip((knob.name for knob in knobs), values, strict=True)) for values in itertools.product(*axes)]
