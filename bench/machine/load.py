"""Measure what else a machine does while something is timed on it, and judge whether that spoils the numbers.

Counters are read before and after, never during a timed call. What a machine does not tell is None, and no reason for
anything. This process's own work, however much, is no load: what counts is the processor time of others on the cores
that this process may use, and the time for which the timed thread did not run.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from bench.machine.cgroups import quota, seconds_held_back

T = TypeVar("T")

OFF_CORE = 0.02
"""Share of the wall time for which the timed thread may be off its core.

With one thread on two cores it is 0.0002 when nothing else runs, 0.01 to 0.04 beside one busy process, where the median
latency is 5 to 15 percent higher and p99 up to half, and 0.3 to 0.6 beside two, where the median doubles.
"""

OTHER_CORES = 0.25
"""Share of the cores that other processes may use."""

STOLEN = 0.02
"""Share of the cores' time that the host of a virtual machine may take."""

HELD_BACK = 0.01
"""Seconds of every second for which a quota may hold back."""

COUNTS = ("held_back", "swapped", "page_faults", "preempted", "yielded", "too_hot")
MOMENTS = ("load_average", "runnable", "megahertz")
"""Counters of which a load says by how much they rose, and those of which it says the values."""

_LEAST_OFF_CORE, _LEAST_TICKS = 0.01, 0.1  # seconds: less is one preemption, or a few ticks of the kernel's clock
_LEAST_SWAPPED = 2**20  # bytes


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: seconds unless named otherwise, None where they cannot be read.

    Attributes:
        wall: a clock.
        running: processor time of the thread that reads.
        used: processor time of this process, its ended children included.
        busy: processor time of all processes on the cores that this process may use.
        stolen: time that the host of a virtual machine took from these cores.
        held_back: time for which the group's quota held its processes back.
        swapped: bytes from and to swap space, of all processes.
        page_faults: of this process that had to wait for a disk.
        preempted, yielded: context switches of this process, involuntary and voluntary.
        too_hot: how often a core was slowed down for its heat.
        load_average: of the last minute.
        runnable: threads of all processes that ran or wanted to.
        megahertz: of the cores, on the mean.
    """

    wall: float
    running: float | None = None
    used: float | None = None
    busy: float | None = None
    stolen: float | None = None
    held_back: float | None = None
    swapped: int | None = None
    page_faults: int | None = None
    preempted: int | None = None
    yielded: int | None = None
    too_hot: int | None = None
    load_average: float | None = None
    runnable: int | None = None
    megahertz: float | None = None


@dataclass(frozen=True)
class Load:
    """What happened between two readings, and on how much of a machine.

    Attributes:
        seconds: that passed.
        threads, cores: of the timed pass, and those that this process may use.
        quota: cores that its control group may use.
        off_core: share of the time for which the timed thread did not run.
        other_cores: cores' worth of processor time that other processes used.
        stolen_cores: cores' worth that the host took.
        held_back, swapped, page_faults, preempted, yielded, too_hot: as in a reading.
        load_average, runnable, megahertz: before and after.
        other_gpu_processes: that held the GPU as well.
    """

    seconds: float
    threads: int
    cores: int
    quota: float | None = None
    off_core: float | None = None
    other_cores: float | None = None
    stolen_cores: float | None = None
    held_back: float | None = None
    swapped: int | None = None
    page_faults: int | None = None
    preempted: int | None = None
    yielded: int | None = None
    too_hot: int | None = None
    load_average: tuple[float | None, float | None] = (None, None)
    runnable: tuple[int | None, int | None] = (None, None)
    megahertz: tuple[float | None, float | None] = (None, None)
    other_gpu_processes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return every field by its name, shares and seconds to four digits."""
        return {field.name: _round(getattr(self, field.name)) for field in fields(self)}


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(allowed) if (allowed := _affinity()) else os.cpu_count() or 1


def read() -> Reading:
    """Read all counters of this moment."""
    times = attempt(_core_times)
    usage = attempt(_usage)
    return Reading(
        wall=time.perf_counter(),
        running=attempt(time.thread_time),
        used=attempt(_cpu_seconds),
        busy=times and times[0],
        stolen=times and times[1],
        held_back=attempt(seconds_held_back),
        swapped=attempt(_swapped_bytes),
        page_faults=usage and usage[0],
        preempted=usage and usage[1],
        yielded=usage and usage[2],
        too_hot=attempt(_too_hot),
        load_average=attempt(lambda: os.getloadavg()[0]),
        runnable=attempt(_runnable),
        megahertz=attempt(_megahertz),
    )


def load_between(
    before: Reading, after: Reading, *, threads: int, cores: int | None = None, others_on_gpu: int | None = None
) -> Load:
    """Return what happened from one reading to the other."""
    seconds = max(after.wall - before.wall, 1e-9)
    running, used, busy, stolen = (
        increase(getattr(before, name), getattr(after, name)) for name in ("running", "used", "busy", "stolen")
    )
    counts: Any = {name: increase(getattr(before, name), getattr(after, name)) for name in COUNTS}
    moments: Any = {name: (getattr(before, name), getattr(after, name)) for name in MOMENTS}
    return Load(
        seconds=seconds,
        threads=threads,
        cores=cores or usable_cores(),
        quota=attempt(quota),
        off_core=None if running is None else max(0.0, 1 - running / seconds),
        other_cores=None if busy is None or used is None else max(0.0, (busy - used) / seconds),
        stolen_cores=None if stolen is None else stolen / seconds,
        other_gpu_processes=others_on_gpu,
        **counts,
        **moments,
    )


def increase(before: float | None, after: float | None) -> Any:
    """Return by how much a counter rose; None where it was not read, or was set back."""
    return None if before is None or after is None or after < before else after - before


def disturbances(load: Load, *, device: str) -> list[str]:
    """Say why latencies that were taken under this load are not to be trusted; nothing on a quiet machine."""
    return [*_waiting_lines(load, device), *_company_lines(load), *_memory_lines(load)]


def _waiting_lines(load: Load, device: str) -> Iterator[str]:
    """Time in which the timed pass could not run; a thread may also wait for a GPU, which is no trouble."""
    waited = load.off_core or 0.0
    if device == "cpu" and waited > OFF_CORE and waited * load.seconds >= _LEAST_OFF_CORE:
        crowd = f", as {load.threads} threads shared {load.cores} cores: set OMP_NUM_THREADS={load.cores}"
        crowd = crowd if load.threads > load.cores else ""
        yield f"the timed thread was off its core for {waited:.0%} of the time{crowd}"
    if load.held_back and load.held_back > HELD_BACK * load.seconds:
        limit = "a quota" if load.quota is None else f"a quota of {load.quota:g} cores"
        yield f"{limit} held {load.threads} threads back for {load.held_back:.2g} s of {load.seconds:.2g} s"
    stolen = (load.stolen_cores or 0.0) / load.cores
    if stolen > STOLEN and stolen * load.cores * load.seconds >= _LEAST_TICKS:
        yield f"the host of this virtual machine took {stolen:.0%} of its cores' time"


def _company_lines(load: Load) -> Iterator[str]:
    """Yield a line about other processes on the same cores, or on the same GPU.

    Under a quota the cores are shared from the start, often with a whole host: there it matters whether enough are
    left.
    """
    others = load.other_cores or 0.0
    allowed = load.cores - load.threads if load.quota is not None else OTHER_CORES * load.cores
    if others > max(allowed, 0) and others * load.seconds >= _LEAST_TICKS:
        yield f"other processes used {others:.1f} of {load.cores} cores"
    if load.other_gpu_processes:
        yield f"other processes held the GPU too ({load.other_gpu_processes})"


def _memory_lines(load: Load) -> Iterator[str]:
    """Yield a line about swapping that reached this process: others' idle pages may come and go."""
    swapped = load.swapped or 0
    if swapped >= _LEAST_SWAPPED and load.page_faults:
        yield f"memory was swapped ({swapped / 2**20:.0f} MiB, {load.page_faults} page faults of this process)"


def attempt(reading: Callable[[], T]) -> T | None:
    """Return a reading, or None where this system does not give it: none may end a measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return reading()
        except Exception:
            return None


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


def _core_times() -> tuple[float, float | None]:
    """Return the busy and stolen seconds of the cores that this process may use."""
    import psutil  # type: ignore[import-untyped]

    cores = [each._asdict() for each in psutil.cpu_times(percpu=True)]
    allowed = _affinity()
    if allowed and max(allowed) < len(cores):  # else a container numbers its own cores anew
        cores = [core for number, core in enumerate(cores) if number in allowed]
    idle = ("idle", "iowait", "steal", "guest", "guest_nice")  # guests' time stands in `user` as well
    busy = sum(seconds for core in cores for name, seconds in core.items() if name not in idle)
    stolen = [core["steal"] for core in cores if "steal" in core]
    return busy, sum(stolen) if stolen else None


def _cpu_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _swapped_bytes() -> int:
    import psutil

    swap = psutil.swap_memory()
    return int(swap.sin + swap.sout)


def _usage() -> tuple[int, int, int]:
    import resource  # not on Windows

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_majflt, usage.ru_nivcsw, usage.ru_nvcsw


def _too_hot() -> int | None:
    counts = list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return sum(int(count.read_text(encoding="utf8")) for count in counts) if counts else None


def _runnable() -> int:
    return int(Path("/proc/loadavg").read_text(encoding="utf8").split()[3].split("/")[0])


def _megahertz() -> float:
    import psutil

    return float(psutil.cpu_freq().current)


def _round(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_round(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
