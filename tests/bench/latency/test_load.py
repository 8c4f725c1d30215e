"""What spoils a timing session, from fake readings: the rule, and what a system does not tell."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]
import pytest

from bench.machine import environment, gpus, load
from bench.machine.load import Load, Reading, attempt, disturbances, load_between, read

START = Reading(
    wall=100.0,
    running=50.0,
    used=60.0,
    busy=1000.0,
    stolen=1.0,
    held_back=2.0,
    swapped=0,
    page_faults=3,
    preempted=4,
    yielded=5,
    too_hot=0,
    load_average=7.5,
    runnable=2,
    megahertz=2600.0,
)
"""Of a process that has trained: the load average is high, and all of it is this process's own."""


class CoreTimes(NamedTuple):
    """What a core did, as psutil has it; the time of guests is part of `user`."""

    user: float
    idle: float
    iowait: float
    steal: float
    guest: float


def later(seconds: float = 10.0, *, alone: float = 0.999, threads: float = 1, **rises: float) -> Reading:
    """A reading after a session in which the timed thread ran nearly always, and some counters rose beyond that."""
    usual = {"wall": seconds, "running": seconds * alone, "used": seconds * threads, "busy": seconds * threads}
    changes: dict[str, Any] = {}
    for name in {*usual, *rises}:
        changes[name] = getattr(START, name) + usual.get(name, 0) + rises.get(name, 0)
    return replace(START, **changes)


def spoilt(after: Reading, *, device: str = "cpu", threads: int = 1, cores: int = 2, **changes: Any) -> list[str]:
    """Why a session that ended with this reading is marked."""
    return disturbances(replace(load_between(START, after, threads=threads, cores=cores), **changes), device=device)


def test_a_quiet_machine_is_quiet_however_much_this_process_works() -> None:
    """Own work on one or all cores, a high load average of the training before, and idle ticks are no disturbance."""
    assert spoilt(later()) == []
    assert spoilt(later(threads=2), threads=2) == []
    assert spoilt(later(busy=0.3, running=-0.1, preempted=40, yielded=400, stolen=0.05)) == []
    assert spoilt(later(swapped=2**24)) == spoilt(later(swapped=4096, page_faults=1)) == [], "pages of others"


@pytest.mark.parametrize(
    ("rises", "more", "words"),
    [
        ({"busy": 10.0}, {}, "other processes used 1.0 of 2 cores"),
        ({"busy": 13.0}, {"cores": 4}, "other processes used 1.3 of 4 cores"),
        ({"running": -3.3}, {}, "off its core for 33% of the time"),
        ({"running": -5.0}, {"threads": 8}, "as 8 threads shared 2 cores: set OMP_NUM_THREADS=2"),
        ({"stolen": 2.0}, {}, "took 10% of its cores' time"),
        ({"held_back": 4.5}, {"quota": 0.5}, "a quota of 0.5 cores held 1 threads back for 4.5 s of 10 s"),
        ({"held_back": 4.5}, {}, "a quota held 1 threads back"),
        ({"swapped": 2**22, "page_faults": 17}, {}, "memory was swapped (4 MiB, 17 page faults"),
        ({}, {"other_gpu_processes": 2}, "other processes held the GPU too (2)"),
    ],
)
def test_each_kind_of_trouble_is_named(rises: dict[str, float], more: dict[str, Any], words: str) -> None:
    """Others' work, waiting, a host, a quota, swapping and a shared GPU each mark a session, in one line."""
    (line,) = spoilt(later(**rises), **more)
    assert words in line


def test_latencies_that_are_all_too_high_alike_are_found() -> None:
    """A thread that ran for a hundredth of the time has narrow intervals and rounds that agree, and is marked."""
    (line,) = spoilt(later(alone=0.0067))
    assert "99% of the time" in line


@pytest.mark.parametrize("cores", [64, 4])
def test_a_shared_host_under_a_quota_matters_where_too_few_cores_are_left(cores: int) -> None:
    """With 60 of 64 cores busy for others, a quota of 2 and no waiting there is nothing to mark; else there is."""
    crowding_line = Load(seconds=10, threads=2, cores=cores, quota=2.0, off_core=0.001, other_cores=cores - 4 + 2.5)
    assert disturbances(replace(crowding_line, other_cores=cores - 4.0), device="cpu") == []
    assert len(disturbances(crowding_line, device="cpu")) == 1
    assert len(disturbances(replace(crowding_line, other_cores=0.0, off_core=0.2), device="cpu")) == 1


def test_a_moment_is_too_short_to_tell() -> None:
    """In a session of 40 ms one preemption and a few ticks of the kernel's clock are no evidence; 30 ms waited are."""
    assert spoilt(later(0.04, running=-0.004, busy=0.03, stolen=0.01)) == []
    assert len(spoilt(later(0.04, running=-0.03))) == 1


def test_waiting_for_a_gpu_is_no_trouble() -> None:
    """A thread that sleeps while the GPU works is off its core, and that is as it should be."""
    assert spoilt(later(running=-9.0), device="cuda") == []


def test_what_a_system_does_not_tell_is_no_reason_for_anything() -> None:
    """Readings without any counter, or with one that was set back, make a load of blanks and no mark."""
    blank = load_between(Reading(wall=1.0), Reading(wall=2.0), threads=4, cores=2)
    assert disturbances(blank, device="cpu") == []
    assert blank.off_core is blank.other_cores is blank.stolen_cores is blank.held_back is None
    backwards = load_between(START, replace(later(), busy=3.0, stolen=0.0), threads=1, cores=2)
    assert backwards.other_cores is backwards.stolen_cores is None
    one_sided = load_between(replace(START, running=None), later(), threads=1, cores=2)
    assert one_sided.off_core is None


def test_nothing_that_fails_ends_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no counter can be read, whatever the reason, there is a reading with a clock and blanks."""

    def broken(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError

    for name in ("cpu_times", "swap_memory", "cpu_freq"):
        monkeypatch.setattr(psutil, name, broken)
    monkeypatch.setattr(load, "Path", missing)
    monkeypatch.setattr(load, "seconds_held_back", missing)
    monkeypatch.setattr(os, "getloadavg", missing)
    found = read()
    blank = ("busy", "stolen", "held_back", "swapped", "too_hot", "load_average", "runnable", "megahertz")
    assert {getattr(found, name) for name in blank} == {None}
    assert found.wall > 0


def test_counters_are_of_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a host shows 8 cores and two are ours, the others' work is theirs; a container's own numbers count all."""
    times = [CoreTimes(user=number, idle=5.0, iowait=1.0, steal=2.0, guest=number) for number in range(8)]
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: times)
    for allowed, busy in (({2, 5}, 7), ({12, 13}, 28)):
        monkeypatch.setattr(load, "_affinity", lambda allowed=allowed: allowed)
        assert (read().busy, read().stolen) == (busy, 4 if busy == 7 else 16)


def test_a_load_is_json_with_every_reading() -> None:
    """What is stored has every field, numbers rounded, and moments as before and after."""
    stored = load_between(START, later(), threads=1, cores=2, others_on_gpu=0).to_json()
    assert set(stored) == {field.name for field in fields(Load)}
    assert stored["off_core"] == 0.001
    assert stored["load_average"] == [7.5, 7.5]


def test_more_threads_than_may_run_at_once_are_told() -> None:
    """Threads are held against cores and quota, the smaller of the two, and the remedy is a number that fits."""
    seen = {"usable_cores": 8, "cpu_quota": None, "torch_threads": 8}
    assert environment.crowding_line(seen) == ""
    assert "8 cores" in environment.crowding_line({**seen, "torch_threads": 9})
    assert "set OMP_NUM_THREADS=2" in environment.crowding_line({**seen, "cpu_quota": 2.5})
    assert "set OMP_NUM_THREADS=1" in environment.crowding_line({**seen, "cpu_quota": 0.5})
    assert environment.crowding_line({**seen, "cpu_quota": 0.5, "torch_threads": 1}) != ""


@pytest.mark.parametrize(("listed", "others"), [(None, None), ([], 0), (["77"], 0), (["77", "78", "79"], 2)])
def test_of_the_processes_on_a_gpu_one_is_this(
    monkeypatch: pytest.MonkeyPatch, listed: list[str] | None, others: int | None
) -> None:
    """One of the processes that the driver lists is this one; without a list nothing is known, nor on a CPU."""
    monkeypatch.setattr(gpus, "_nvidia_smi", lambda query: listed)
    assert gpus.other_processes("cuda") == others
    assert gpus.other_processes("cpu") is None


def test_an_attempt_keeps_warnings_to_itself() -> None:
    """A library's warning about a missing file ends nothing, though warnings are errors here."""

    def warns() -> int:
        import warnings

        warnings.warn("no swap here", RuntimeWarning, stacklevel=1)
        return 3

    assert attempt(warns) == 3
