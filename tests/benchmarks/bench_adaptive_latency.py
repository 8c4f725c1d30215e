"""What a static subnet or an exit saves on the clock beside what it saves in FLOPs, one example at a time.

    pytest tests/benchmarks/bench_adaptive_latency.py --benchmark-only -s

Neither depends on what a model has learnt, so the packaged weights serve, with exit heads that everyone leaves at.
Nothing is asserted of time, because it depends on the machine.
"""

from __future__ import annotations

import statistics
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.timing import Latencies, measure, wall_clock
from efficient_bert import Batch, run
from efficient_bert.cost import full_flops, trace_flops
from efficient_bert.decisions import Policy
from efficient_bert.methods.entropy_exit import ENTROPY_EXIT
from efficient_bert.model import EfficientBertForSequenceClassification, reshaped
from efficient_bert.subnets import subnet_policy, uniform
from tests.benchmarks.bench_dense_latency import ROUNDS, SEED, examples, quartiles
from tests.conftest import MiniLM

Arm = tuple[EfficientBertForSequenceClassification, Policy]


def arms(model: EfficientBertForSequenceClassification) -> dict[str, Arm]:
    """The full model first, then subnets of at least half the width, and exits where everyone leaves."""
    found: dict[str, Arm] = {"full": (model, Policy())}
    for width, depth in ((1.0, 0.5), (0.75, 1.0), (0.5, 1.0), (0.5, 0.5)):
        found[f"width {width} depth {depth}"] = model, subnet_policy(uniform(model.config, width=width, depth=depth))
    for depth in (2, 3, 4):
        exiting = reshaped(model, exit_depths=[depth]).eval()
        found[f"exit after {depth}"] = exiting, ENTROPY_EXIT.policy(exiting, {"exit_threshold": 10.0})
    return found


@pytest.mark.parametrize("length", [64, 128, 256])
def test_adaptive_latency(minilm: MiniLM, benchmark: BenchmarkFixture, length: int) -> None:
    """Of each arm the paired wall speed-up, the FLOPs speed-up and their ratio are printed."""
    inputs = [Batch.of(example) for example in examples(minilm, length)]
    able = arms(minilm.ours("sdpa"))
    calls = {name: partial(run, model, policy=policy) for name, (model, policy) in able.items()}
    with torch.inference_mode():
        session = partial(measure, calls, inputs, rounds=ROUNDS, seed=SEED, stopwatch=wall_clock())
        found: dict[str, Latencies] = benchmark.pedantic(session, rounds=1, iterations=1)
        traces = {name: call(inputs[0]).trace for name, call in calls.items()}
    samples = {name: [sample for example in latencies.wall for sample in example] for name, latencies in found.items()}
    full = samples.pop("full")
    whole = int(full_flops(torch.tensor([length]), able["full"][0].config))
    print(f"\n{length} tokens, {torch.get_num_threads()} threads, full {1000 * statistics.median(full):.2f} ms")
    for name, times in samples.items():
        wall = [other / own for own, other in zip(times, full, strict=True)]
        flops = whole / int(trace_flops(traces[name], able[name][0].config))
        ratio = statistics.median(wall) / flops
        print(f"  {name:20} wall {quartiles(wall)}, FLOPs {flops:.3f}, ratio {ratio:.3f}")
        benchmark.extra_info[name] = ratio
