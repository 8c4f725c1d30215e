"""Do arms disturb each other? `OMP_NUM_THREADS=2 python tests/benchmarks/bench_company.py`, with nothing else running.

Medians of each engine alone and beside all others, by the harness's own protocol, for random weights of MiniLM's size;
then two identical arms of the fastest engine, twenty times.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from statistics import median

import torch

from bench.backends.runners import Runner
from bench.latency.profiles import Profile
from bench.latency.session import prepared
from bench.latency.sizes import config_of, make_subject, random_rows
from bench.latency.timing import measure, wall_clock
from bench.registry import BACKENDS

ENGINES = ("torch", "torch-bf16", "hf-sdpa", "onnxruntime", "onnxruntime-int8")
LENGTHS = (16, 128, 256)
PROFILE = Profile(6, tokens=(0.6, 0.4, 0.3, 0.2, 0.15, 0.1))


def medians(runners: Mapping[str, Runner], length: int, *, rounds: int, seed: int = 0) -> dict[str, float]:
    """Median milliseconds of each arm."""
    rows = [random_rows(1, length, seed=number) for number in range(16)]
    arms = {name: prepared(runner, rows) for name, runner in runners.items()}
    latencies = measure(arms, range(len(rows)), rounds=rounds, seed=seed, stopwatch=wall_clock())
    return {
        name: 1000 * median(sample for samples in each.wall for sample in samples) for name, each in latencies.items()
    }


def main(engines: list[str]) -> None:
    """Print both tables."""
    config = config_of("minilm")
    dense, dropping = (make_subject(config, profile, "cpu") for profile in (Profile(6), PROFILE))
    runners = {f"full on {name}": BACKENDS[name].make(dense) for name in engines}
    runners |= {f"dropping on {name}": BACKENDS[name].make(dropping) for name in engines if not BACKENDS[name].dense}
    print(f"{torch.get_num_threads()} threads; ms alone / in company of {len(runners) - 1} others (ratio)")
    for length in LENGTHS:
        company = medians(runners, length, rounds=20)
        for name, runner in runners.items():
            alone = medians({name: runner}, length, rounds=20)[name]
            print(
                f"{length:4}  {name:32} {alone:7.3f} {company[name]:7.3f}  {company[name] / alone - 1:+.1%}", flush=True
            )
    twins = {name: BACKENDS["onnxruntime-int8"].make(dropping) for name in ("one", "other")}
    for length in LENGTHS:
        pairs = [medians(twins, length, rounds=20, seed=seed) for seed in range(20)]
        apart = sorted(abs(pair["one"] / pair["other"] - 1) for pair in pairs)
        close = sum(each <= 0.02 for each in apart)
        print(f"{length:4}  identical arms: {close} of 20 within 2 %; largest difference {apart[-1]:.1%}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(ENGINES))
