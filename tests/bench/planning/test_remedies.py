"""Remedies that can be taken: what a refusal proposes is accepted, for models of few layers and heads too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import pytest

from bench.errors import InputError
from bench.planning.describe import describe
from bench.planning.plan import Plan, parse_settings
from bench.planning.settings import Settings
from bench.registry import METHODS, all_knobs, stages_of
from efficient_bert import EfficientBertConfig
from efficient_bert import InputError as LibraryError
from efficient_bert.config import check_widths, example_fractions
from efficient_bert.knobs import parse_numbers
from tests.support.backbone_folders import planned, sound

WORDS = {"one": 1, "two": 2, "three": 3}
FLAGS = {"--width-list": "width.list", "--depth-list": "depth.list", "--depth-rule": "depth.rule"}


@dataclass(frozen=True)
class Asked:
    """A model's size, a method, and the values given."""

    layers: int
    heads: int
    method: str
    given: Mapping[str, str]
    classes: int = 2

    def plan(self) -> Plan:
        """The plan of it; its arms are what is checked."""
        config = EfficientBertConfig(
            hidden_size=12,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            id2label={number: f"class{number}" for number in range(self.classes)},
            problem_type="regression" if self.classes == 1 else "single_label_classification",
        )
        settings = Settings(
            "sst2",
            methods=(self.method,) if self.method else (),
            knobs={name: (value,) for name, value in self.given.items() if "." not in name},
            options={name: value for name, value in self.given.items() if "." in name},
        )
        return replace(sound_plan(), config=config, settings=parse_settings(settings))

    def refusal(self) -> str:
        """The line that refuses it, empty where it is accepted."""
        try:
            self.plan().check()
        except (InputError, LibraryError) as error:
            return str(error)
        return ""

    def after(self, line: str) -> Asked:
        """What is asked once everything that the line proposes is taken."""
        proposed = dict(proposals(line))
        size = {name: int(proposed.pop(name)) for name in ("layers", "heads") if name in proposed}
        method = proposed.pop("method", self.method)
        return replace(self, **size, method=method, given={**self.given, **proposed})


@cache
def sound_plan() -> Plan:
    """The plan with the sound backbone."""
    return planned(sound()[0])


def proposals(line: str) -> Iterator[tuple[str, str]]:
    """Name of a knob, an option, a size or the method -> the value that a refusal proposes for it."""
    for part in re.split(r"; (?=the \w+ list|\w+ is |the width)", line):
        named = re.match(r"(\w+) is ", part)
        name = named[1] if named else "width_mult"
        name = "class_weights" if name == "the" else name
        for flag, value in re.findall(r"(--(?:width|depth)-(?:list|rule)) (\S+?)(?=[;,]? |;|$)", part):
            yield FLAGS[flag], value
        for pattern in (
            r"give at most (\d+)",
            r"give ([\d.]+) (?:or more|to 1)",
            r"(?:lies|number|share) in \[([\d.]+), ",
            r"lies in \(0, ([\d.]+)\]",
            r"lies in \[0, ([\d.]+)\] nats",
            r", as ([\d./]+)",
            r"such as theirs, ([\d.,]+)",
            r"divide \d+ layers equally; try (\d+)",
        ):
            for value in re.findall(pattern, part) if ": the width is" not in part else ():
                yield {"class_weights": "gates.class_weights"}.get(name, name), value
        for count, unit in re.findall(r"take a backbone of (\w+) (layers|heads) or more", part):
            yield unit, str(WORDS.get(count) or count)
        for method in re.findall(r"take method (?:\w+ or )?(\w+)", part):
            yield "method", method
        for given, wrong, least in re.findall(r"is '(.*)': the width is (\S+), .*; give ([\d.]+) ", part):
            yield name, ",".join(least if float(each) == float(wrong) else each for each in given.split(","))
        for least in re.findall(r"it is balanced, (none) or", part):
            yield "gates.class_weights", least


def numbers_of_knobs(method: str) -> dict[str, list[str]]:
    """Wrong values of each of a method's knobs."""
    wrong = {
        "patience": ["0", "9", "1"],
        "exit_threshold": ["9", "-1", "1.0986"],
        "depth_mult": ["0", "0.01", "2"],
        "width_mult": ["0.01", "0.5,0.5,0.5,0.5,0.5", "0"],
        "exit_width": ["0", "0.01"],
        "width_mult_list": ["1", "0.01,1"],
        "num_gates": ["5"],
        "class_rates": ["0.1", "2/3"],
        "exit_rates": ["2", "0.1/0.1/0.1/0.1"],
        "profile": ["0.5/0.9", "0"],
    }
    return {knob.name: wrong[knob.name] for knob in all_knobs(METHODS[method]) if knob.name in wrong}


SIZES = {name: ((1, 1), (2, 2), (3, 2)) if method.suite else ((2, 2),) for name, method in METHODS.items()}


def cases() -> Iterator[Asked]:
    """Every method, bare and with each wrong value, for small models; and wrong lists and weights of its stages."""
    for method in METHODS:
        stages = {stage.name for stage in stages_of(METHODS[method])}
        lists = {
            **({"width.list": ["0.01,1", "0.5", "1,1"]} if "width" in stages else {}),
            **({"depth.list": ["0.01,1", "0.5", "1"], "depth.rule": ["floor"]} if "depth" in stages else {}),
            **({"gates.class_weights": ["1", "-1,1"]} if "gates" in stages else {}),
        }
        for layers, heads in SIZES[method]:
            for classes in (1, 3):
                yield Asked(layers, heads, method, {}, classes)
            for name, values in {**numbers_of_knobs(method), **lists}.items():
                yield from (Asked(layers, heads, method, {name: value}) for value in values)


def test_every_remedy_is_accepted() -> None:
    """Whoever takes all that a refusal proposes gets no refusal twice, and is soon accepted."""
    refused = 0
    for asked in cases():
        now, lines = asked, list[str]()
        while line := now.refusal():
            assert line not in lines, f"{asked}: {lines}"
            assert len(lines) < 8, f"{asked}: {lines}"
            lines.append(line)
            after = now.after(line)
            if re.search("give one width, or one for each", line):
                after = replace(after, given={**after.given, "width_mult": "1"})
            now = after
        refused += bool(lines)
    assert refused > 50


@pytest.mark.parametrize("whole", range(1, 33))
def test_proposed_fractions_leave_different_numbers(whole: int) -> None:
    """The list that refusals propose is one that is accepted, whatever the number of layers or heads."""
    fractions = example_fractions(whole)
    check_widths(fractions, heads=whole)
    counts = [round(fraction * whole) for fraction in fractions]
    assert counts == sorted(set(counts))
    assert counts[-1] == whole
    assert counts[0] >= 1


def test_one_refusal_names_every_wrong_value() -> None:
    """Values that no knob takes are named together, and so are values that this model does not."""
    given = {"exit_threshold": "x", "patience": "0", "exits.epochs": "none", "exits.precision": "f8"}
    line = Asked(3, 2, "", given).refusal()
    for part in ("exit_threshold is 'x'", "patience is 0", "epochs is 'none'", "precision is 'f8'"):
        assert part in line
    line = Asked(3, 2, "", {"exit_threshold": "2", "patience": "7", "depth_mult": "0.1"}).refusal()
    for part in ("exit_threshold is 2", "patience is 7", "depth_mult is 0.1"):
        assert part in line
    line = Asked(2, 2, "flexible", {}).refusal()
    assert "--width-list 0.5,1" in line
    assert "--depth-list 0.5,1" in line
    line = Asked(2, 2, "full", {"patience": "1", "width.list": "1"}).refusal()
    assert "the knob 'patience'" in line
    assert "the training option 'width.list'" in line


def test_methods_left_out_are_named_in_the_plan() -> None:
    """Of the suite, what does not fit the model is told with the reason, and so are points that are left out."""
    plan = Asked(1, 2, "", {}).plan()
    lines = [line for line in describe(plan, plan.arms, 0.0) if line.startswith("left out")]
    assert {line.split()[2] for line in lines} == {"entropy_exit:", "patience_exit:", "static_depth:"}
    assert all("but" in line or "leaves none of 1 layers" in line for line in lines)
    plan = Asked(3, 2, "", {}).plan()
    (line,) = (line for line in describe(plan, plan.arms, 0.0) if line.startswith("left out"))
    assert re.search(r"patience_exit: 2 of 3 points: patience is 2, but .* give at most 1$", line)


@pytest.mark.parametrize(("text", "separator", "apart"), [("a,b", ",", "commas"), ("1/x", "/", "slashes")])
def test_what_is_no_list_is_told_how_one_is_written(text: str, separator: str, apart: str) -> None:
    """No numbers are proposed, since which fit depends on the model."""
    with pytest.raises(LibraryError, match=f"takes numbers separated by {apart}$"):
        parse_numbers(text, separator=separator)
