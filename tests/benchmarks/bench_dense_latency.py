"""Dense latency of one example beside Hugging Face's SDPA model, paired and interleaved in one run.

    pytest tests/benchmarks/bench_dense_latency.py --benchmark-only -s

Adaptive methods save time only if the loop that runs them costs nothing on the full model; nothing is asserted of
time, because it depends on the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.data.loading import load_split
from bench.latency.timing import Latencies, measure, wall_clock
from bench.registry import TASKS
from efficient_bert import Batch, run
from tests.conftest import MiniLM

EXAMPLES = 5
ROUNDS = 12
SEED = 0


def examples(minilm: MiniLM, length: int) -> Iterator[dict[str, Tensor]]:
    """Texts of exactly `length` word pieces: sentences of the demo corpus one after the other, cut."""
    sentences = load_split(TASKS["demo"], "test", data_dir=None, seed=SEED)["text"][:]
    for start in range(EXAMPLES):
        text = " ".join(sentences[start * 60 : (start + 1) * 60])
        pieces = minilm.tokenizer(text, truncation=True, max_length=length, return_tensors="pt", verbose=False)
        assert pieces["input_ids"].shape == (1, length)
        yield {name: pieces[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def quartiles(values: list[float]) -> str:
    """The median with the quartiles in brackets."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def samples(latencies: Latencies) -> list[float]:
    """Every time that was taken, in seconds; those of two arms pair up."""
    return [sample for example in latencies.wall for sample in example]


@pytest.mark.parametrize("length", [16, 64, 128, 256])
def test_dense_latency(minilm: MiniLM, benchmark: BenchmarkFixture, length: int) -> None:
    """The three ways to run the full model give one answer; their times and paired ratios are printed."""
    ours = minilm.ours("sdpa")
    minilm.theirs.set_attn_implementation("sdpa")
    arms: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
        "hugging_face": lambda inputs: minilm.theirs(**inputs).logits,
        "model": lambda inputs: ours(**inputs).logits,
        "gathered": lambda inputs: run(ours, Batch.of(inputs)).logits,
    }
    inputs = list(examples(minilm, length))
    with torch.inference_mode():
        answers = [torch.cat([arm(example) for example in inputs]) for arm in arms.values()]
        session = partial(measure, arms, inputs, rounds=ROUNDS, seed=SEED, stopwatch=wall_clock())
        found: dict[str, Latencies] = benchmark.pedantic(session, rounds=1, iterations=1)
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], atol=1e-5, rtol=0)
    taken = {name: samples(latencies) for name, latencies in found.items()}
    theirs = taken.pop("hugging_face")
    print(
        f"\n{length} tokens, {torch.get_num_threads()} threads, hugging_face {1000 * statistics.median(theirs):.2f} ms"
    )
    for name, times in taken.items():
        ratio = statistics.median(times) / statistics.median(theirs)
        paired = quartiles([own / other for own, other in zip(times, theirs, strict=True)])
        print(f"  {name:10} {1000 * statistics.median(times):7.2f} ms  ratio of medians {ratio:.3f}, paired {paired}")
        benchmark.extra_info[name] = ratio
