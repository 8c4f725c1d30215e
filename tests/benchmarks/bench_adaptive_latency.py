"""What a static subnet or an exit saves on the clock beside what it saves in FLOPs, one example at a time.

    pytest tests/benchmarks/bench_adaptive_latency.py --benchmark-only -s

Neither depends on what a model has learnt, so the packaged weights serve, with exits where everyone leaves.
Nothing is asserted of time, because it depends on the machine.
"""

from __future__ import annotations

import math
import statistics
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.timing import Latencies, measure, wall_clock
from efficient_bert import Batch, run
from efficient_bert.cost import full_flops, trace_flops
from efficient_bert.decisions import Decision, Policy, View
from efficient_bert.exits import certain
from efficient_bert.model import EfficientBertForSequenceClassification, reshaped
from efficient_bert.subnets import subnet_policy, uniform
from tests.benchmarks.bench_dense_latency import ROUNDS, SEED, examples, quartiles, samples
from tests.conftest import MiniLM

EXITS = (2, 3, 4)

Arm = tuple[EfficientBertForSequenceClassification, Policy]


def arms(model: EfficientBertForSequenceClassification) -> dict[str, Arm]:
    """The full model first; subnets of at least half the width; exits where everyone leaves after so many layers."""
    found: dict[str, Arm] = {"full": (model, Policy())}
    for width, depth in ((1.0, 0.5), (0.75, 1.0), (0.5, 1.0), (0.5, 0.5)):
        found[f"width {width} depth {depth}"] = model, subnet_policy(uniform(model.config, width=width, depth=depth))
    exiting = reshaped(model, exit_depths=list(EXITS)).eval()
    for depth in EXITS:
        found[f"exit after {depth}"] = exiting, leaving_after(depth)
    return found


def leaving_after(last: int) -> Policy:
    """Entropy is looked at as far as this depth, and there it is low enough for everyone."""

    def decide(view: View) -> Decision:
        threshold = math.inf if view.depth == last else 0.0
        return Decision(leave=certain(view.logits, threshold)) if len(view.logits) else Decision()

    return Policy(decide, exits=tuple(depth for depth in EXITS if depth <= last))


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
    for depth in EXITS:
        assert traces[f"exit after {depth}"].exit_depth.tolist() == [depth]
    taken = {name: samples(latencies) for name, latencies in found.items()}
    full = taken.pop("full")
    whole = int(full_flops(torch.tensor([length]), able["full"][0].config))
    print(f"\n{length} tokens, {torch.get_num_threads()} threads, full {1000 * statistics.median(full):.2f} ms")
    for name, times in taken.items():
        wall = [other / own for own, other in zip(times, full, strict=True)]
        flops = whole / int(trace_flops(traces[name], able[name][0].config))
        ratio = statistics.median(wall) / flops
        print(f"  {name:20} wall {quartiles(wall)}, FLOPs {flops:.3f}, ratio {ratio:.3f}")
        benchmark.extra_info[name] = ratio
