"""The timing session of a plan: the full model and the arms take turns on single examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bench.backends.runners import Runner
from bench.data.loading import DATA_SEED
from bench.errors import InputError
from bench.latency.repeats import disagreement
from bench.latency.throughput import measure_throughput
from bench.latency.timing import TURN, WARM_UP, Latencies, Stopwatch, cuda_clock, measure, wall_clock
from bench.machine.gpus import other_processes
from bench.machine.load import Load, Reading, disturbances, load_between, read
from bench.planning.plan import Arm, Plan
from bench.progress import Watcher
from bench.store.artifacts import content_hash
from efficient_bert.memory import keep_freed_memory
from efficient_bert.rows import Rows

TIME_AGAIN = "when nothing else runs, time them anew: the same command with --time-again"
"""What to do about latencies that are not to be trusted."""


def time_arms(
    plan: Plan,
    runners: Mapping[str, Runner],
    tables: Mapping[str, pa.Table],
    watcher: Watcher,
    *,
    reading: Callable[[], Reading] = read,
) -> tuple[dict[str, dict[str, Any]], dict[str, pa.Table]]:
    """Time the arms beside the full model in one session; return each arm's timing, and tables with the samples.

    Args:
        plan: what is timed, and how.
        runners: run id -> runner, the full model's among them.
        tables: run id -> example table.
        watcher: shows progress.
        reading: reads the machine's counters.
    """
    if not plan.timing:
        return {run_id: {} for run_id in tables}, dict(tables)
    require_threads(plan)
    keep_freed_memory()  # as a training before it in this process has done
    row_numbers = sample_rows(plan)
    latencies, load = measure_latencies(plan, runners, row_numbers, watcher, reading)
    throughputs, crowd = measure_throughputs(plan, runners, row_numbers, watcher, reading)
    protocol = {**protocol_of(plan, list(runners), len(row_numbers)), "load": load.to_json()}
    spoilt = [*disturbances(load, device=plan.settings.device), *crowd]
    full = plan.arms[0].run_id
    unsteady = {arm.run_id: unsteadiness(arm, latencies[arm.run_id]) for arm in plan.arms if arm.run_id in runners}
    timing = {
        run_id: {
            **protocol,
            **throughputs.get(run_id, {}),
            "disturbed_by": spoilt or list(dict.fromkeys(unsteady[full] + unsteady[run_id])),
        }
        for run_id in tables
    }
    if lines := dict.fromkeys(line for each in timing.values() for line in each["disturbed_by"]):
        watcher.say(f"latencies are marked: {'; '.join(lines)}; {TIME_AGAIN}")
    return timing, {
        run_id: add_samples(table, row_numbers, latencies[run_id], full=latencies[full])
        for run_id, table in tables.items()
    }


def require_threads(plan: Plan) -> None:
    """Check that this process still has the plan's number of threads.

    Raises:
        InputError: a library has changed it since.
    """
    import torch

    if torch.get_num_threads() != plan.environment["torch_threads"]:
        raise InputError(
            f"training left {torch.get_num_threads()} threads, but these runs are of "
            f"{plan.environment['torch_threads']}; set OMP_NUM_THREADS, or give the command again"
        )


def measure_latencies(
    plan: Plan,
    runners: Mapping[str, Runner],
    row_numbers: Sequence[int],
    watcher: Watcher,
    reading: Callable[[], Reading],
) -> tuple[dict[str, Latencies], Load]:
    """Measure the latencies of each arm, and the load on the machine meanwhile; load in the warm-up is a warning."""
    device, threads = plan.settings.device, int(plan.environment["torch_threads"])
    readings: list[Reading] = []

    def ready() -> None:
        readings.append(reading())
        if lines := disturbances(load_between(readings[0], readings[1], threads=threads), device=device):
            watcher.say(f"this machine is busy ({'; '.join(lines)}), and is about to be timed")

    rows = plan.data.evaluation.select(row_numbers).to_list()
    name = f"time {len(runners)} arms on {len(row_numbers)} examples"
    others = [other_processes(device)]
    with watcher.counting_bar(name, plan.timing.rounds, still=True) as advance:
        readings.append(reading())
        latencies = measure(
            {run_id: prepared(runner, [[row] for row in rows]) for run_id, runner in runners.items()},
            range(len(rows)),
            rounds=plan.timing.rounds,
            seed=plan.settings.seed,
            stopwatch=stopwatch_of(plan),
            ready=ready,
            advance=lambda: advance(1),
        )
        end = reading()
    others.append(other_processes(device))
    most = max((count for count in others if count is not None), default=None)
    return latencies, load_between(readings[1], end, threads=threads, others_on_gpu=most)


def measure_throughputs(
    plan: Plan,
    runners: Mapping[str, Runner],
    row_numbers: Sequence[int],
    watcher: Watcher,
    reading: Callable[[], Reading],
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Measure the offline throughput of each arm on the timed rows, where it is wanted.

    Returns:
        entries of each arm's timing, and why they are not to be trusted; nothing where throughput is not wanted.
    """
    if not plan.timing.throughput:
        return {}, []
    rows = plan.data.evaluation.select(row_numbers).to_list()
    threads = int(plan.environment["torch_threads"])
    name = f"measure the throughput of {len(runners)} arms on {len(rows)} examples"
    with watcher.counting_bar(name, plan.timing.rounds + 1, still=True) as advance:
        before = reading()
        reached = measure_throughput(
            runners,
            rows,
            threads=threads,
            rounds=plan.timing.rounds,
            stopwatch=stopwatch_of(plan),
            advance=lambda: advance(1),
        )
        load = load_between(before, reading(), threads=threads)
    lines = disturbances(replace(load, off_core=None), device=plan.settings.device)  # it may wait for its own threads
    entries = {run_id: {"throughput": each.to_json()} for run_id, each in reached.items()}
    return entries, [f"while throughput was measured, {line}" for line in lines]


def stopwatch_of(plan: Plan) -> Stopwatch:
    """Return what times a pass on the plan's device."""
    return cuda_clock() if plan.settings.device == "cuda" else wall_clock()


def prepared(runner: Runner, batches: Sequence[Rows]) -> Callable[[int], object]:
    """Return what answers the batch of a number, whose inputs are ready."""
    inputs = [runner.prepare(rows) for rows in batches]
    return lambda number: runner(inputs[number])


def protocol_of(plan: Plan, run_ids: Sequence[str], examples: int) -> dict[str, Any]:
    """Return how a session timed, and with what."""
    return {
        "session": content_hash([datetime.now(UTC).isoformat(), sorted(run_ids)]),
        "device": plan.environment["device_name"],
        "clock": "wall clock and CUDA events, synchronised" if plan.settings.device == "cuda" else "wall clock",
        "batch_size": 1,
        "examples": examples,
        "rounds": plan.timing.rounds,
        "warm_up_examples": min(WARM_UP, examples),
        "examples_per_turn": min(TURN, examples),
        "threads": plan.environment["torch_threads"],
        "arms": len(run_ids),
    }


def unsteadiness(arm: Arm, latencies: Latencies) -> list[str]:
    """Say why the rounds of an arm disagree; nothing where they agree."""
    line = disagreement(latencies.wall)
    return [f"in {arm.label}, {line}"] if line else []


def sample_rows(plan: Plan) -> list[int]:
    """Draw the numbers of the reported rows to time, the same for every seed of training."""
    count = min(plan.timing.examples, len(plan.data.evaluation))
    draw = random.Random(DATA_SEED)  # noqa: S311 - a draw, no secret
    return sorted(draw.sample(range(len(plan.data.evaluation)), count))


def add_samples(table: pa.Table, row_numbers: Sequence[int], arm: Latencies, *, full: Latencies) -> pa.Table:
    """Return the table with the samples of the timed rows."""
    columns: dict[str, list[list[float]]] = {
        name: [[] for _ in range(len(table))] for name in ("seconds", "event_seconds", "reference_seconds")
    }
    for turn, row in enumerate(row_numbers):
        columns["seconds"][row] = arm.wall[turn]
        columns["event_seconds"][row] = arm.events[turn]
        columns["reference_seconds"][row] = full.wall[turn]
    for name, samples in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(samples, type=field.type))
    return table
