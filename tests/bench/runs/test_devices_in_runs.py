"""On a GPU that is not there: an evaluation, an estimate and a document's explanation stay on the one device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.backends.captured import CAPTURED
from bench.backends.eager import BFLOAT16, EAGER
from bench.backends.runners import Subject, answer, move
from bench.errors import InputError
from bench.planning.checks import check_backends
from bench.rationales.documents import Document, Reader, answers, explanations
from bench.registry import BACKENDS, EXPLAINERS, METHODS, all_knobs
from bench.runs.estimate import seconds_per_pass
from bench.runs.evaluation import Reading, evaluate, evaluate_readings
from efficient_bert.engine.captured import CapturedBlocks
from efficient_bert.policies.exit_rules import replay
from tests.efficient_bert.training.test_training_loop import rows
from tests.support.accelerator import CUDA, MixedDevicesError, accelerator
from tests.support.cuda_graphs import cuda_graphs
from tests.support.tiny import tiny_model

ROWS = rows(12, 0)


@pytest.fixture
def gpu() -> Iterator[None]:
    """A GPU, for as long as the test runs."""
    with accelerator():
        yield


def subject(name: str, device: str) -> Subject:
    """A method at its default knobs on a tiny model that was moved to the device, with shares counted there."""
    model, method = move(tiny_model(classes=2, max_position_embeddings=12), device), METHODS[name]
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    return Subject(model, method, method.calibrate(model, ROWS, knobs), tiny_model(classes=2).config, device)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", METHODS)
def test_an_evaluation_on_the_gpu_is_that_on_the_cpu(name: str) -> None:
    """Tables agree: probabilities to 5 digits, what ran and what it cost, to the last one."""
    expected, table = (evaluate(EAGER.make(subject(name, device)), ROWS).to_pydict() for device in ("cpu", "cuda"))
    assert_same(table, expected)


def assert_same(table: dict[str, Any], expected: dict[str, Any]) -> None:
    """Columns are equal, probabilities to 5 digits."""
    np.testing.assert_allclose(table.pop("probabilities"), expected.pop("probabilities"), atol=1e-5)
    assert table == expected


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["adapler", "width_gates", "static_subnet"])
def test_captured_layers_answer_as_layers_that_are_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation's table is the same, and all that it needs was captured beforehand."""
    with cuda_graphs():
        runner = CAPTURED.make(subject(name, "cuda"))
        monkeypatch.delattr(CapturedBlocks, "capture")
        table = evaluate(runner, ROWS).to_pydict()
    assert_same(table, evaluate(EAGER.make(subject(name, "cpu")), ROWS).to_pydict())


def test_captured_layers_need_a_gpu() -> None:
    """On a CPU the backend is refused in one line."""
    with pytest.raises(InputError, match="torch-captured runs on cuda, not on cpu"):
        check_backends([BACKENDS["torch-captured"]], "cpu")


@pytest.mark.usefixtures("gpu")
def test_bfloat16_weights_run_on_the_gpu() -> None:
    """The copy with bfloat16 weights answers there, about as the CPU does, and the model stays in float32."""
    here, there = subject("adapler", "cpu"), subject("adapler", "cuda")
    expected, output = (answer(BFLOAT16.make(each), ROWS).logits for each in (here, there))
    assert output.device == CUDA
    torch.testing.assert_close(output.cpu(), expected, atol=0.05, rtol=0.05)
    assert there.model.dtype == torch.float32


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.leaving])
def test_readings_of_one_pass_on_the_gpu_are_those_on_the_cpu(name: str) -> None:
    """Every point of the knob that says who leaves is read off the GPU's pass."""
    leaving = METHODS[name].leaving
    assert leaving is not None
    (knob,) = (knob for knob in METHODS[name].knobs if knob.name == leaving.knob)
    tables = []
    for device in ("cpu", "cuda"):
        some = subject(name, device)
        rules = [leaving.rule(some.model.config, point) for point in knob.points]
        readings = [Reading(None, partial(replay, done=rule)) for rule in rules]
        never = replace(some, knobs={**some.knobs, knob.name: leaving.never})
        tables.append([table.to_pydict() for table in evaluate_readings(EAGER.make(never), ROWS, readings)])
    assert len(tables[0]) == len(knob.points) > 1
    for here, there in zip(*tables, strict=True):
        assert there["exit_depth"] == here["exit_depth"]
        assert there["flops"] == here["flops"]
        np.testing.assert_allclose(there["probabilities"], here["probabilities"], atol=1e-5)


@pytest.mark.usefixtures("gpu")
def test_a_runner_that_mixes_devices_is_caught() -> None:
    """Batches that were prepared on the CPU raise, and so does a head that was left there."""
    some = subject("full", "cuda").runner()
    with pytest.raises(MixedDevicesError):
        evaluate(replace(some, device="cpu"), ROWS)
    some.model.classifier = nn.Linear(some.model.config.hidden_size, 2)
    with pytest.raises(MixedDevicesError):
        evaluate(some, ROWS)


@pytest.mark.usefixtures("gpu")
def test_an_estimate_takes_passes_on_the_gpu() -> None:
    """Single passes are timed to the end, which a copy to the CPU is."""
    assert seconds_per_pass(EAGER.make(subject("width_gates", "cuda")), ROWS[:2]) > 0


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", EXPLAINERS)
def test_documents_are_explained_on_the_gpu(name: str) -> None:
    """Answers, their cost and the scores of tokens are those on the CPU."""
    pieces = np.arange(5, 11)
    document = Document("d", "d", "POS", tuple("abcdef"), pieces, np.arange(6), pieces % 2 == 0)
    reader = Reader(1, 2, max_length=6, windows=True)
    results = []
    for device in ("cpu", "cuda"):
        runner = subject("adapler", device).runner()
        (read,) = answers(runner, reader, [(document, None)])
        (scores,) = explanations(EXPLAINERS[name], runner, reader, documents=[document], classes=[1], pooling="mean")
        results.append((read.probabilities, read.flops, scores))
    (here, flops, expected), (there, spent, scores) = results
    np.testing.assert_allclose(there, here, atol=1e-5)
    assert spent == flops
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-4)
