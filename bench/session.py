"""The timing session of a plan: the full model and the arms take turns on single examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bench.artifacts import content_hash
from bench.data import DATA_SEED
from bench.errors import InputError
from bench.evaluation import Runnable
from bench.plan import Plan
from bench.progress import Watcher
from bench.timing import TURN, WARM_UP, Latencies, cuda_clock, measure, wall_clock
from efficient_bert.memory import keep_freed_memory


def timed(
    plan: Plan, ables: Mapping[str, Runnable], tables: Mapping[str, pa.Table], watcher: Watcher
) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """One timing session of the arms beside the reference; the protocol, and the tables with the samples.

    Args:
        ables: run id -> what is timed, the plan's reference among them.
        tables: run id -> example table.
    """
    if not plan.latency_examples or not plan.rounds:
        return {}, dict(tables)
    import torch

    if torch.get_num_threads() != plan.environment["torch_threads"]:
        raise InputError(
            f"training left {torch.get_num_threads()} threads, but these runs are of "
            f"{plan.environment['torch_threads']}; set OMP_NUM_THREADS, or give the command again"
        )
    keep_freed_memory()  # as a training before it in this process has done
    places = sampled(plan)
    calls = {run_id: forward(able) for run_id, able in ables.items()}
    inputs = [single(plan, row) for row in plan.data.evaluation.select(places).to_list()]
    with watcher.counting(f"time {len(calls)} arms on {len(places)} examples", plan.rounds) as advance:
        latencies = measure(
            calls,
            inputs,
            rounds=plan.rounds,
            seed=plan.settings.seed,
            stopwatch=cuda_clock() if plan.settings.device == "cuda" else wall_clock(),
            advance=lambda: advance(1),
        )
    protocol = {
        "session": content_hash([datetime.now(UTC).isoformat(), sorted(calls)]),
        "device": plan.environment["device_name"],
        "clock": "wall clock and CUDA events, synchronised" if plan.settings.device == "cuda" else "wall clock",
        "batch_size": 1,
        "examples": len(places),
        "rounds": plan.rounds,
        "warm_up_examples": min(WARM_UP, len(places)),
        "examples_per_turn": min(TURN, len(places)),
        "threads": torch.get_num_threads(),
        "arms": len(calls),
    }
    own = latencies[plan.arms[0].run_id]
    return protocol, {
        run_id: with_samples(table, places, latencies[run_id], reference=own) for run_id, table in tables.items()
    }


def sampled(plan: Plan) -> list[int]:
    """Places of the examples to time: a draw from the evaluation split, the same for every seed of training."""
    count = min(plan.latency_examples, len(plan.data.evaluation))
    draw = random.Random(DATA_SEED)  # noqa: S311 - a draw, no secret
    return sorted(draw.sample(range(len(plan.data.evaluation)), count))


def single(plan: Plan, row: Mapping[str, Any]) -> Any:
    """One example as a batch of one on the device."""
    from efficient_bert import Batch
    from efficient_bert.training.batches import collate

    inputs = collate([row], pad_token_id=plan.config.padding)
    return Batch.of({name: value.to(plan.settings.device) for name, value in inputs.items()})


def forward(arm: Runnable) -> Callable[[Any], object]:
    """The timed call: one gathered pass."""
    import torch

    from efficient_bert import run

    @torch.inference_mode()
    def call(batch: Any) -> object:
        return run(arm.model, batch, arm.policy).logits

    return call


def with_samples(table: pa.Table, places: Sequence[int], own: Latencies, *, reference: Latencies) -> pa.Table:
    """The table with the timed rows' samples filled in."""
    columns: dict[str, list[list[float]]] = {
        name: [[] for _ in range(len(table))] for name in ("seconds", "event_seconds", "reference_seconds")
    }
    for turn, place in enumerate(places):
        columns["seconds"][place] = own.wall[turn]
        columns["event_seconds"][place] = own.events[turn]
        columns["reference_seconds"][place] = reference.wall[turn]
    for name, samples in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(name), pa.array(samples, type=table.schema.field(name).type))
    return table
