"""Several commands at one store, a disk that is full and signals: the store stays whole, and one line says why."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from tests.support.command_line import call
from tests.support.forked import start
from tests.support.tiny_files import write_backbone, write_sst2

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and a data set."""
    folder = tmp_path_factory.mktemp("inputs")
    write_backbone(folder / "bert")
    write_sst2(folder / "sst2", train=40, dev=12)
    return folder


def command(inputs: Path, store: Path, *more: object, epochs: int = 1, name: str = "run") -> list[object]:
    """A command on the inputs, its full model alone."""
    places = ["--backbone", inputs / "bert", "--data-dir", inputs / "sst2", "--store", store, "--device", "cpu"]
    measuring = ["--latency-examples", 0, "--report", store.with_name(f"{store.name}-report")]
    asked = [name, "--task", "sst2", "--preset", "smoke", "--finetune-epochs", epochs, "--method", "full", *places]
    return [*asked, *(measuring if name == "run" else ()), *more]


def leftovers(store: Path) -> list[str]:
    """Names that only a command under way may leave in a store."""
    return sorted(path.name for kind in ("artifacts", "runs") for path in (store / kind).glob(".*"))


def once(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


@pytest.fixture(scope="module")
def lone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a command that was alone."""
    store = tmp_path_factory.mktemp("lone") / "store"
    assert call(*command(inputs, store)).code == 0
    return store


def same_weights(one: Path, other: Path) -> bool:
    """Whether the stores hold the same stages, with the same weights."""
    files = [sorted(store.glob("artifacts/*/model.safetensors")) for store in (one, other)]
    names = [[path.parent.name for path in own] for own in files]
    pairs = zip(*([load_file(path) for path in own] for own in files), strict=True)
    return names[0] == names[1] and all(equal(a[name], b[name]) for a, b in pairs for name in a | b)


@pytest.mark.parametrize("second", ["run", "train", "--fresh"])
def test_two_commands_at_once_both_end_well(inputs: Path, lone: Path, tmp_path: Path, second: str) -> None:
    """Beside a run, a training or one that starts afresh, the model is that of a lone run, and nothing is left.

    One whose model or run is forgotten by the fresh start before it has ended may say so in one line.
    """
    store = tmp_path / "store"
    name, more = ("run", ["--fresh"]) if second == "--fresh" else (second, [])
    one = start(*command(inputs, store))
    other = start(*command(inputs, store, *more, name=name))
    answers = one.answer(), other.answer()
    said = ("by another command (--fresh) meanwhile", "bench: no run ")  # of the model, or of the run
    forgotten = second == "--fresh" and any(line in answers[0].err for line in said)
    assert [answer.code for answer in answers] == [2 if forgotten else 0, 0], [answer.err for answer in answers]
    assert "Traceback" not in answers[0].err
    assert same_weights(store, lone)
    assert leftovers(store) == []


def test_who_waits_says_for_what_and_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    """The second holder is told once what the first is at work on; a killed one leaves the lock to the next."""
    from bench.store.locks import exclusive_lock

    place = tmp_path / "stage-1"
    holder = "import sys, time; from pathlib import Path; from bench.store.locks import exclusive_lock\n"
    holder += "with exclusive_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(float(sys.argv[2]))"
    both = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen([sys.executable, "-c", holder, str(place), "600"], **both)  # type: ignore[call-overload]
    assert first.stdout.readline() == "held\n"
    second = subprocess.Popen([sys.executable, "-c", holder, str(place), "0"], **both)  # type: ignore[call-overload]
    assert second.stderr.readline() == f"bench: waits for another command, which is at work on {place}\n"
    first.kill()
    assert second.communicate() == ("held\n", "")
    first.communicate()
    with exclusive_lock(place), exclusive_lock(place):
        assert list(tmp_path.iterdir()) == [tmp_path / ".stage-1.lock"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("largest", [0, 2_000, 30_000])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    inputs: Path, lone: Path, tmp_path: Path, largest: int
) -> None:
    """Whichever file does not fit, none is left half-written, and with room the command ends as if nothing had been."""
    store = tmp_path / "store"
    answer = start(*command(inputs, store), largest=largest).answer()
    assert answer.code == 2, answer
    line = answer.err.strip().splitlines()[-1]
    assert line.startswith(f"bench: {store}")
    assert "File too large; allow larger files" in line
    assert "give the same command again" in line
    assert not [path for path in tmp_path.rglob("*") if path.name == "ready" or path.suffix == ".part"]
    assert call(*command(inputs, store)).code == 0
    assert same_weights(store, lone)
    assert leftovers(store) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_training_in_one_line(inputs: Path, tmp_path: Path, number: signal.Signals) -> None:
    """What a scheduler, a closed terminal and Ctrl-C send is told, with the exit code that shells know it by."""
    store = tmp_path / "store"
    running = start(*command(inputs, store, epochs=1000))
    once(lambda: list(store.glob("artifacts/.*.partial/checkpoint.safetensors")))
    running.send(number)
    answer = running.answer()
    assert answer.code == 128 + number
    lines = [line for line in answer.err.splitlines() if line and not line.startswith("train finetune: held-out")]
    assert lines == [
        f"bench: interrupted ({number.name}); what is finished is kept, and the same command goes on from there"
    ]
    assert not list(store.rglob("*.part"))
    assert not list(store.rglob("*.lock"))
