"""One step of stage `depth`: a pass for each width that every depth reads, beside a pass for each of twelve subnets.

    pytest tests/benchmarks/bench_shared_prefix.py --benchmark-only -s

Both kinds of step start from the same parameters, follow the same teacher and take turns; nothing is asserted of time,
because it depends on the machine. That their gradients agree is in tests/efficient_bert/training/test_distillation.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.memory import keep_freed_memory
from efficient_bert.training.batches import batch_of
from efficient_bert.training.distillation import readings, teach
from efficient_bert.training.flexible.stage import Teaching, descend_jointly, freeze_copy, teacher_loss
from tests.conftest import MiniLM, demo

ROUNDS = 5
LENGTH = 32


def shared(model: EfficientBertForSequenceClassification, inputs: dict[str, Tensor], teaching: Teaching) -> None:
    """A gradient from four passes, each of which is descended on at once."""
    descend_jointly(model, inputs, teaching, Tensor.backward)


def naive(model: EfficientBertForSequenceClassification, inputs: dict[str, Tensor], teaching: Teaching) -> None:
    """The same gradient from twelve passes, each of which is descended on at once; the teacher runs once here too."""
    assert teaching.teacher is not None
    batch = batch_of(model, inputs)
    teacher = teach(teaching.teacher, batch)
    for width in teaching.widths:
        for depth in teaching.depths:
            (reading,) = readings(model, batch, width=width, depths=(depth,))
            teacher_loss(reading, teacher, batch.mask, depth=depth, teaching=teaching).backward()


@pytest.mark.parametrize("examples", [4, 16])
def test_shared_prefix(minilm: MiniLM, benchmark: BenchmarkFixture, examples: int) -> None:
    """The medians of both steps and their paired ratio are printed."""
    model = minilm.ours("sdpa")
    pieces = minilm.encoded(
        [(f"{one} {other}",) for (one,), (other,) in zip(demo(examples), demo(2 * examples)[examples:], strict=True)]
    )
    inputs = {**pieces, "labels": torch.zeros(examples, dtype=torch.int64)}
    assert inputs["input_ids"].shape == (examples, LENGTH)
    teaching = Teaching((1.0, 0.75, 0.5, 0.25), depths=(1.0, 2 / 3, 0.5), teacher=freeze_copy(model, "cpu"), states=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    model.train()
    keep_freed_memory()  # as every training does

    def step(descend: Callable[..., None]) -> float:
        started = time.perf_counter()
        descend(model, inputs, teaching)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    def session() -> list[tuple[float, float]]:
        step(shared), step(naive)
        return [(step(shared), step(naive)) for _ in range(ROUNDS)]

    pairs = benchmark.pedantic(session, rounds=1, iterations=1)
    ratio = statistics.median(one / other for one, other in pairs)
    benchmark.extra_info["ratio"] = ratio
    ours, theirs = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"\n{examples} examples of {LENGTH}: shared {ours:.0f} ms, naive {theirs:.0f} ms, paired ratio {ratio:.3f}")
