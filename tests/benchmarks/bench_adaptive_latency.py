"""What a static subnet, an exit or dropped tokens save on the clock beside their FLOPs, one example at a time.

    pytest tests/benchmarks/bench_adaptive_latency.py --benchmark-only -s

None depends on what a model has learnt, so the packaged weights serve, with exits where everyone leaves and thresholds
that let as many tokens stay as trained ones do.
Nothing is asserted of time, because it depends on the machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.latency.timing import Latencies, measure, wall_clock
from efficient_bert import Batch, run
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.model import EfficientBertForSequenceClassification, rebuild
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.policies.exit_rules import is_certain
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from efficient_bert.training.adapler.stage import with_contribution
from tests.benchmarks.bench_dense_latency import ROUNDS, SEED, examples, quartiles, samples
from tests.conftest import MiniLM

EXITS = (2, 3, 4)

KEPT = {
    "movies": (512, (0.52, 0.48, 0.49, 0.65, 0.84, 0.88)),
    "imdb": (256, (0.65, 0.97, 0.66, 0.75, 0.71, 0.48)),
}
"""Word pieces, and of those that enter each decision the share that stays: AdapLeR's mean lengths in `results/`, at phi
0.0004 on movies and at phi 0.0001 on IMDB."""

Arm = tuple[EfficientBertForSequenceClassification, Policy]


def arms(model: EfficientBertForSequenceClassification) -> dict[str, Arm]:
    """The full model first; subnets of at least half the width; exits where everyone leaves after so many layers."""
    found: dict[str, Arm] = {"full": (model, Policy())}
    for width, depth in ((1.0, 0.5), (0.75, 1.0), (0.5, 1.0), (0.5, 0.5)):
        found[f"width {width} depth {depth}"] = (
            model,
            subnet_policy(uniform_subnet(model.config, width=width, depth_mult=depth)),
        )
    exiting = rebuild(model, exit_depths=list(EXITS)).eval()
    for depth in EXITS:
        found[f"exit after {depth}"] = exiting, leaving_after(depth)
    return found


def leaving_after(last: int) -> Policy:
    """Entropy is looked at as far as this depth, and there it is low enough for everyone."""

    def decide(view: View) -> Decision:
        threshold = math.inf if view.depth == last else 0.0
        return Decision(leave=is_certain(view.logits, threshold)) if len(view.logits) else Decision()

    return Policy(decide, exits=tuple(depth for depth in EXITS if depth <= last))


def aim_thresholds(
    model: EfficientBertForSequenceClassification, inputs: Sequence[Batch], kept: Sequence[float]
) -> None:
    """Thresholds at which each decision, on these examples, leaves this share of the tokens that enter it."""
    contribution = model.contributions()
    contribution.eta.data.zero_()
    for layer, share in enumerate(kept):
        outputs = [run(model, batch, contribution_policy(contribution)) for batch in inputs]
        scores = [output.decisions[layer].scores for output in outputs]
        fractions = torch.cat([own[0] * own.shape[1] for own in scores if own is not None])
        contribution.eta.data[layer] = fractions.quantile(1 - share)


def replayed(model: EfficientBertForSequenceClassification, batch: Batch) -> Policy:
    """AdapLeR's decisions on this example once more, for nothing."""
    decisions = run(model, batch, contribution_policy(model.contributions())).decisions
    return Policy(lambda view: Decision(keep=decisions[view.depth].keep))


def report(benchmark: BenchmarkFixture, found: dict[str, Latencies], flops: dict[str, float], title: str) -> None:
    """Print each arm's paired wall speed-up, its FLOPs speed-up and their ratio."""
    taken = {name: samples(latencies) for name, latencies in found.items()}
    full = taken.pop("full")
    print(f"\n{title}, {torch.get_num_threads()} threads, full {1000 * statistics.median(full):.2f} ms")
    for name, times in taken.items():
        wall = [other / own for own, other in zip(times, full, strict=True)]
        ratio = statistics.median(wall) / flops[name]
        print(f"  {name:20} wall {quartiles(wall)}, FLOPs {flops[name]:.3f}, ratio {ratio:.3f}")
        benchmark.extra_info[name] = ratio


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
    whole = int(full_flops(torch.tensor([length]), able["full"][0].config))
    flops = {name: whole / int(trace_flops(trace, able[name][0].config)) for name, trace in traces.items()}
    report(benchmark, found, flops, f"{length} tokens")


@pytest.mark.parametrize("task", KEPT)
def test_adapler_latency(minilm: MiniLM, benchmark: BenchmarkFixture, task: str) -> None:
    """As above, of AdapLeR, and of its decisions replayed: what would be saved if deciding took no time."""
    length, kept = KEPT[task]
    inputs = [Batch.of(example) for example in examples(minilm, length)]
    torch.manual_seed(SEED)
    model = with_contribution(minilm.ours("sdpa"), 32).eval()
    with torch.inference_mode():
        aim_thresholds(model, inputs, kept)
        decide = contribution_policy(model.contributions())
        known = {id(batch): replayed(model, batch) for batch in inputs}
        calls: dict[str, Callable[[Batch], object]] = {
            "full": partial(run, model),
            "adapler": partial(run, model, policy=decide),
            "decisions replayed": lambda batch: run(model, batch, known[id(batch)]),
        }
        session = partial(measure, calls, inputs, rounds=ROUNDS, seed=SEED, stopwatch=wall_clock())
        found: dict[str, Latencies] = benchmark.pedantic(session, rounds=1, iterations=1)
        traces = [run(model, batch, decide).trace for batch in inputs]
    whole = len(inputs) * int(full_flops(torch.tensor([length]), model.config))
    flops = whole / sum(int(trace_flops(trace, model.config)) for trace in traces)
    report(benchmark, found, dict.fromkeys(("adapler", "decisions replayed"), flops), f"{task}, {length} tokens")
