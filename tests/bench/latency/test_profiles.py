"""Profiles: what a layer runs on is what the profile says, in every engine, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench.backends.runners import answer
from bench.errors import InputError
from bench.latency.profiles import Profile, profile_of, profile_of_run, read_profile
from bench.latency.sizes import make_subject, random_rows, time_size
from bench.machine.load import Reading
from bench.registry import BACKENDS
from bench.store.runs import RunStore
from efficient_bert import EfficientBertConfig
from tests.support.command_line import call
from tests.support.stored_runs import StoredRun, read_runs
from tests.support.tiny import tiny_config

PROFILE = Profile(4, tokens=(1.0, 0.5, 0.5, 0.1), widths=(1.0, 1.0, 0.5, 0.5), exits={1: 0.25, 3: 0.5})


def random_rows_of(config: EfficientBertConfig, length: int, *, count: int = 1) -> list[dict[str, Any]]:
    """Rows of word pieces that the model has."""
    rows = random_rows(count, length, seed=0)
    return [{**row, "input_ids": [each % config.vocab_size for each in row["input_ids"]]} for row in rows]


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_layers_run_on_what_the_profile_says(backend: str) -> None:
    """Rounded shares of the tokens, half of the heads, and shares of the examples at the depths."""
    config = tiny_config()
    assert config.num_hidden_layers == 4
    runner = BACKENDS[backend].make(make_subject(config, PROFILE, "cpu"))
    trace = answer(runner, random_rows_of(config, 12, count=200)).trace
    expected, heads = torch.tensor([12, 6, 6, 1]), config.num_attention_heads
    alive = trace.tokens > 0
    assert torch.equal(trace.tokens, expected * alive)
    assert torch.equal(trace.heads, torch.tensor([heads, heads, heads // 2, heads // 2]) * alive)
    stayed = trace.decision_macs[trace.exit_depth == 4]
    of_token = 32 * config.hidden_size + 32  # AdapLeR's predictor
    assert torch.equal(stayed, (torch.tensor([12, 12, 6, 6]) * of_token).expand_as(stayed)), "one on each token"
    left = [(trace.exit_depth == depth).double().mean().item() for depth in (1, 3, 4)]
    assert left == pytest.approx([0.25, 0.5, 0.25], abs=0.1), "200 draws"


def test_padded_texts_keep_shares_of_their_own_length() -> None:
    """Half of twelve tokens and half of six, in one batch; the predictor runs on what is left of each."""
    config = tiny_config()
    runner = make_subject(config, replace(PROFILE, exits={}), "cpu").runner()
    trace = answer(runner, [*random_rows_of(config, 12), *random_rows_of(config, 6)]).trace
    assert trace.tokens.tolist() == [[12, 6, 6, 1], [6, 3, 3, 1]]
    assert (trace.decision_macs // trace.decision_macs[1, 3]).tolist() == [[4, 4, 2, 2], [2, 2, 1, 1]]


def test_another_depth_does_as_the_layer_at_its_place() -> None:
    """Twice the layers: each twice, and exits twice as deep; half of them: the second of each two."""
    assert PROFILE.stretched(4) == PROFILE
    double = PROFILE.stretched(8)
    assert (double.layers, double.exits) == (8, {2: 0.25, 6: 0.5})
    assert double.tokens == (1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1)
    half = PROFILE.stretched(2)
    assert (half.tokens, half.widths, half.exits) == ((0.5, 0.1), (1.0, 0.5), {1: 0.75})


def test_a_run_has_a_profile(tmp_path: Path) -> None:
    """Shares are means over the examples that are still there; widths are of the full model's."""
    full = StoredRun("full")
    run = StoredRun("run", "flexible", kept=(1, 1, 0.5, 0.5, 0.2, 0.2), depths=(6, 2), heads=((2, 1, 1, 1, 1, 1),))
    narrow = StoredRun("narrow", "static_width", heads=((1,) * 6,))
    alone = StoredRun("alone", "static_width", backbone="another")
    read_runs(tmp_path, full, run, narrow, alone)
    store = RunStore(tmp_path)
    profile = profile_of_run(store, "run")
    assert profile.tokens == pytest.approx((1, 1, 0.5, 0.5, 0.2, 0.2))
    assert (profile.widths, profile.exits) == ((1, 0.5, 0.5, 0.5, 0.5, 0.5), {2: 0.5})
    assert profile_of_run(store, "full") == Profile(6)
    assert profile_of_run(store, "narrow") == Profile(6, widths=(0.5,) * 6)
    with pytest.raises(InputError, match="no run of the full model with backbone another"):
        profile_of_run(store, "alone")


@pytest.mark.parametrize(
    ("tokens", "heads", "expected"),
    [
        ([4, 0], [2, 0], Profile(2, exits={1: 1.0})),
        ([0, 4, 0, 2], [0, 2, 0, 1], Profile(4, (1, 0.5, 0.5, 0.5), (1, 0.5, 0.5, 0.5), {2: 1.0})),
    ],
)
def test_layers_that_run_count(tokens: list[int], heads: list[int], expected: Profile) -> None:
    """What runs after a layer that is left out is the next one; layers that never run do as those before them."""
    depth = sum(each > 0 for each in tokens)
    examples = pd.DataFrame({"length": [4], "exit_depth": [depth], "tokens": [tokens], "heads": [heads]})
    assert profile_of(examples, layers=len(tokens), heads=2) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tokens": [1]}, "layers is None"),
        ({"layers": True}, "layers is True"),
        ({"layers": 2, "token": [1, 1]}, "the key 'token'"),
        ({"layers": 2, "tokens": [1]}, "not 2 shares"),
        ({"layers": 2, "tokens": [0.5, 1]}, "which rises"),
        ({"layers": 2, "widths": [0, 1]}, "not 2 shares in (0, 1]"),
        ({"layers": 2, "widths": ["x", 1]}, "could not convert"),
        ({"layers": 2, "exits": {"2": 0.5}}, "depths from 1 to 1"),
        ({"layers": 3, "exits": {"1": 0.6, "2": 0.6}}, "more than all"),
        ({"layers": 2, "exits": [1]}, "is no profile"),
        ([], "not an object"),
    ],
)
def test_what_is_no_profile_is_refused(content: Any, said: str, tmp_path: Path) -> None:
    """One line with the file, what is wrong in it and the rule."""
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(content), encoding="utf8")
    with pytest.raises(InputError, match="a profile is a JSON object") as error:
        read_profile(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_times_every_engine_and_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for the full model on each engine and for a profile on those that decide; batches where there are any."""
    monkeypatch.setattr("bench.latency.sizes.SIZES", {"minilm": (2, 32, 2)})
    path, out = tmp_path / "half.json", tmp_path / "out.json"
    path.write_text('{"layers": 4, "tokens": [1, 0.5, 0.5, 0.5]}', encoding="utf8")
    engines = ("--backend", "torch", "--backend", "onnxruntime-int8")
    small = ("--length", "4,9", "--batch", "1,2", "--rounds", 1, "--device", "cpu")
    answer = call("latency", "--profile", path, *engines, *small, "--out", out)
    assert answer.code == 0, answer.err
    cells = json.loads(out.read_text(encoding="utf8"))["cells"]
    rows = {(cell["arm"], cell["backend"], cell["batch"]) for cell in cells}
    one_by_one = {(arm, "onnxruntime-int8", 1) for arm in ("full", "half")}
    assert rows == one_by_one | {(arm, "torch", batch) for arm in ("full", "half") for batch in (1, 2)}
    assert {cell["length"] for cell in cells} == {4, 9}
    assert all(cell["milliseconds"] > 0 for cell in cells)
    assert "| half | onnxruntime-int8 |" in answer.out
    assert "random weights" in answer.out


def test_the_command_tells_of_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two lengths the second is timed while others use the cores: one line below the table, and none in quiet."""
    monkeypatch.setattr("bench.latency.sizes.SIZES", {"minilm": (2, 32, 2)})
    monkeypatch.setattr("bench.machine.load.usable_cores", lambda: 2)
    quiet = [Reading(wall=at, running=at, used=at, busy=at) for at in (0.0, 10.0, 20.0, 30.0)]
    for readings, count in ((quiet, 0), ([*quiet[:3], replace(quiet[3], busy=39.0)], 1)):
        given = partial(time_size, reading=partial(next, iter(readings)))
        monkeypatch.setattr("bench.latency.sizes.time_size", given)
        answer = call("latency", "--length", "4,9", "--rounds", 1, "--device", "cpu")
        assert answer.code == 0, answer.err
        told = [line for line in answer.out.splitlines() if line.startswith("busy machine: ")]
        start = "busy machine: 1 of 2 numbers are not to be trusted (other processes used 0.9 of 2 cores)"
        assert [line.partition(";")[0] for line in told] == [start] * count


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--length", "0"), "--length is '0'"),
        (("--length", "513"), "numbers from 1 to 512"),
        (("--batch", "two"), "--batch is 'two'"),
        (("--size", "huge"), "one of minilm, base, large"),
        (("--profile", "none.json"), "none.json is missing"),
        (("--run", "none"), "none"),
        (("--device", "gpu"), "device is 'gpu'"),
        (("--out", "none/times.json"), "there is no folder none"),
        (("--out", "."), "is a directory"),
    ],
)
def test_wrong_flags_are_one_line(flags: tuple[str, ...], said: str) -> None:
    """Exit code 2, the value and the rule."""
    answer = call("latency", "--device", "cpu", *flags)
    assert answer.code == 2
    assert said in answer.err


@pytest.mark.parametrize("paths", [("half.json", "other/half.json"), ("full.json",)])
def test_two_arms_of_one_name_are_refused(paths: tuple[str, ...], tmp_path: Path) -> None:
    """A profile that is called as another, or as the full model, would take its place in the table."""
    files = [tmp_path / path for path in paths]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text('{"layers": 2, "widths": [1, 0.5]}', encoding="utf8")
    answer = call("latency", "--device", "cpu", *(each for file in files for each in ("--profile", file)))
    assert answer.code == 2
    assert f"two arms are called '{files[0].stem}'" in answer.err
