"""Time and memory of scoring 100,000 documents with hard and soft rationales, classes and erased scores.

    pytest tests/benchmarks/bench_eraser.py --benchmark-only -s

The scorer runs as a process of its own, so that the memory is its own. Nothing is asserted of time, because it depends
on the machine; the memory is held to 1 GiB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from eraser_eval.formats.lines import write_objects

ROOT = Path(__file__).parents[2]
DOCUMENTS = 100_000
LENGTHS = (20, 200)
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
MEMORY = 2**30


def lengths() -> Iterator[tuple[str, int, np.random.Generator]]:
    """Name and number of tokens of each document, the same at every call, with random numbers for the rest."""
    generator = np.random.default_rng(0)
    for index, length in enumerate(generator.integers(*LENGTHS, size=DOCUMENTS).tolist()):
        yield f"document-{index}", length, generator


def distribution(generator: np.random.Generator) -> dict[str, float]:
    """Probabilities of two classes."""
    share = round(float(generator.random()), 6)
    return {"NEG": share, "POS": 1 - share}


def erased(generator: np.random.Generator) -> dict[str, Any]:
    """Probabilities after erasing."""
    return {f"{kind}_classification_scores": distribution(generator) for kind in ("comprehensiveness", "sufficiency")}


def prediction(docid: str, length: int, generator: np.random.Generator) -> dict[str, Any]:
    """A line with everything that can be scored."""
    start, end = sorted(generator.choice(length, size=2, replace=False).tolist())
    return {
        "annotation_id": docid,
        "rationales": [
            {
                "docid": docid,
                "hard_rationale_predictions": [{"start_token": start, "end_token": end}],
                "soft_rationale_predictions": np.round(generator.random(length), 5).tolist(),
            }
        ],
        "classification": "NEG",
        "classification_scores": distribution(generator),
        **erased(generator),
        "thresholded_scores": [{"threshold": share, **erased(generator)} for share in SHARES],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and its predictions, written line by line."""
    found = tmp_path_factory.mktemp("eraser")
    write_objects(found / "docs.jsonl", ({"docid": docid, "document": "w " * n} for docid, n, _ in lengths()))
    spans = ((docid, {"docid": docid, "start_token": n // 4, "end_token": n // 2}) for docid, n, _ in lengths())
    rows = ({"annotation_id": docid, "classification": "POS", "evidences": [[span]]} for docid, span in spans)
    write_objects(found / "val.jsonl", rows)
    write_objects(found / "predictions.jsonl", (prediction(*each) for each in lengths()))
    return found


def test_many_documents(folder: Path, benchmark: BenchmarkFixture) -> None:
    """100,000 documents are scored, with intervals, in less than 1 GiB."""
    command = [sys.executable, "-m", "eraser_eval", "score", "--split", "val", "--json"]
    command += ["--data", str(folder), "--predictions", str(folder / "predictions.jsonl")]
    started = time.perf_counter()
    done = benchmark.pedantic(
        lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True), rounds=1, iterations=1
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"\n{DOCUMENTS:,} documents: {seconds:.1f} seconds, {peak / 2**20:.0f} MiB")
    assert json.loads(done.stdout)["agreement"]["documents"] == DOCUMENTS
    assert peak < MEMORY
