"""Engines beside ours answer like the eager runner, and say how they compute."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.backends.runners import Runner, Subject, answer
from bench.errors import InputError
from bench.planning.plan import make_plan
from bench.planning.settings import Settings
from bench.registry import BACKENDS, METHODS
from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.encoder.packing import PackedDense
from efficient_bert.engine.recorder import Output
from tests.support.points import knobs_of
from tests.support.tiny import VOCABULARY, tiny_model
from tests.support.tiny_files import write_backbone, write_sst2

CLEAR = 1.0
"""Distance of the two largest logits from which on a coarse engine has to name the same class."""


def rows_of(lengths: Sequence[int], *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of random word pieces and segments."""
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    return [
        {
            "example_id": str(number),
            "input_ids": [draw.randrange(1, VOCABULARY) for _ in range(length)],
            "token_type_ids": [draw.randrange(2) for _ in range(length)],
            "label": 0,
        }
        for number, length in enumerate(lengths)
    ]


ROWS = rows_of((5, 3, 9, 17, 40, 2, 16))


def subject_of(model: EfficientBertForSequenceClassification, method: str = "full") -> Subject:
    """The model, run by a method at a point at which something happens."""
    knobs = knobs_of(method, model)
    return Subject(model, METHODS[method], knobs, model.config, "cpu", lambda: rows_of(range(2, 34), seed=1))


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A random full model."""
    return subject_of(tiny_model("four_heads"))


def differences(runner: Runner, subject: Subject) -> tuple[float, float]:
    """Largest distance to the eager runner's logits, in one batch and one by one; FLOPs and traces are equal."""
    expected, together = answer(subject.runner(), ROWS), answer(runner, ROWS)
    for pair in zip(runner.flops(together), subject.runner().flops(expected), strict=True):
        assert torch.equal(*pair)
    for ours, theirs in zip(runner.published_flops(together), runner.flops(together), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in vars(expected.trace).items():
        assert torch.equal(getattr(together.trace, name), value), name
    single = torch.cat([answer(runner, [row]).logits for row in ROWS])
    assert_same_clear_labels(together, expected)
    assert together.logits.dtype == torch.float32
    distances = [(logits - expected.logits).abs().max().item() for logits in (together.logits, single)]
    return distances[0], distances[1]


def assert_same_clear_labels(output: Output, expected: Output) -> None:
    """Examples with a clear answer have the same one; there are some."""
    best = expected.logits.topk(2).values
    clear = best[:, 0] - best[:, 1] > CLEAR
    assert clear.any()
    assert torch.equal(output.logits.argmax(1)[clear], expected.logits.argmax(1)[clear])


@pytest.mark.parametrize(
    ("name", "attention", "dtype", "tolerance"),
    [
        ("hf-eager", "eager", "torch.float32", 1e-5),
        ("hf-sdpa", "sdpa", "torch.float32", 1e-5),
        ("hf-bf16", "sdpa", "torch.bfloat16", 0.1),
    ],
)
def test_hugging_face_answers_like_the_eager_runner(
    subject: Subject, name: str, attention: str, dtype: str, tolerance: float
) -> None:
    """The weights in Hugging Face's class, padded or single, under the attention and the type that it reads back."""
    runner = BACKENDS[name].make(subject)
    assert max(differences(runner, subject)) < tolerance
    said = runner.environment
    assert (said["attention"], said["dtype"], said["threads"]) == (attention, dtype, torch.get_num_threads())
    assert said["transformers"].startswith("5.")
    assert not said["compiled"]


def test_a_model_keeps_its_type_where_a_copy_has_another(subject: Subject) -> None:
    """The model that other arms run stays in float32."""
    BACKENDS["hf-bf16"].make(subject)
    assert {parameter.dtype for parameter in subject.model.parameters()} == {torch.float32}


def test_only_padded_batches_have_a_mask(subject: Subject) -> None:
    """Texts that need no padding are passed as a user passes them for speed, and as our engine runs them."""
    runner = BACKENDS["hf-sdpa"].make(subject)
    assert "attention_mask" not in runner.prepare(ROWS[:1])[1]
    assert "attention_mask" not in runner.prepare(rows_of((7, 7)))[1]
    assert runner.prepare(ROWS[:2])[1]["attention_mask"].sum(1).tolist() == [5, 3]


def test_narrow_layers_are_refused() -> None:
    """Hugging Face's class knows one number of heads: one line says so."""
    narrow = tiny_model("four_heads", layer_heads=[4, 2])
    with pytest.raises(InputError, match=r"layers have \[4, 2\] heads.*leave this backend out"):
        BACKENDS["hf-sdpa"].make(subject_of(narrow))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_compiled_before_it_is_timed() -> None:
    """It answers as eager, and no single text of another length makes another graph."""
    from torch._dynamo.utils import counters

    subject = subject_of(tiny_model("four_heads", num_hidden_layers=1, exit_depths=()))
    runner = BACKENDS["hf-compile"].make(subject)
    graphs = counters["stats"]["unique_graphs"]
    for row in ROWS:
        answer(runner, [row])
    assert counters["stats"]["unique_graphs"] == graphs > 0
    assert max(differences(runner, subject)) < 1e-5
    assert runner.environment["compiled"]


def needs_openvino(name: str) -> None:
    """Skip where a package of the backend is missing, without importing it: the backend decides how that is done."""
    missing = [package for package in BACKENDS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


OPENVINO = {"f32": 1e-4, "f16": 0.05, "bf16": 0.1}
"""Type that OpenVINO chose -> how far logits may be from ours."""


def test_openvino_answers_like_the_eager_runner(subject: Subject) -> None:
    """In the precision and on the threads that it reads back."""
    needs_openvino("openvino")
    runner = BACKENDS["openvino"].make(subject)
    said = runner.environment
    assert max(differences(runner, subject)) < OPENVINO[said["dtype"]]
    assert (said["threads"], said["streams"]) == (torch.get_num_threads(), 1)
    assert said["openvino"].startswith("20")
    assert sys.modules["openvino_telemetry"] is None, "nothing is reported over the network"


def test_openvino_meets_lengths_in_any_order(subject: Subject) -> None:
    """Rows that were prepared before or after others get their own answer."""
    needs_openvino("openvino")
    runner = BACKENDS["openvino"].make(subject)
    rows = rows_of((7, 21, 4, 33))
    inputs = [runner.prepare([row]) for row in rows[:2]]
    later = answer(runner, rows[2:]).logits
    earlier = [runner.output(each, runner(each)).logits for each in inputs]
    distance = (torch.cat([*earlier, later]) - answer(subject.runner(), rows).logits).abs().max()
    assert distance < OPENVINO[runner.environment["dtype"]]


def test_openvino_hides_padding(subject: Subject) -> None:
    """A text padded to a static length gets the answer that it gets alone."""
    needs_openvino("openvino")
    from bench.backends.openvino import answer_one, compile_graph, convert, load_openvino, padded_inputs, precision_of

    load_openvino()
    graph = convert(subject, masked=True)
    graph.reshape({name: [1, 48] for name in padded_inputs([], [])})
    compiled = compile_graph(graph)
    request = compiled.create_infer_request()
    padded = [answer_one(request, padded_inputs(row["input_ids"], row["token_type_ids"], 48)) for row in ROWS]
    distance = (torch.cat(padded) - answer(subject.runner(), ROWS).logits).abs().max()
    assert distance < OPENVINO[precision_of(compiled)]


def test_openvino_in_int8(subject: Subject) -> None:
    """Dense products run in int8, and a text's answer depends on no other text."""
    needs_openvino("openvino-int8")
    runner = BACKENDS["openvino-int8"].make(subject)
    together, single = differences(runner, subject)
    assert 0 < together == single < 0.6
    assert runner.environment["dtype"] == "int8"
    assert runner.environment["threads"] == torch.get_num_threads()
    (request, arrays), *_ = runner.prepare(ROWS[3:4])[1]
    assert arrays["input_ids"].shape == (1, 32)
    assert arrays["attention_mask"].sum() == 17
    operations = [each.get_rt_info() for each in request.get_compiled_model().get_runtime_model().get_ordered_ops()]
    dense = [each for each in operations if each["layerType"].astype(str) == "FullyConnected"]
    assert len(dense) > 6
    assert {each["primitiveType"].astype(str)[-2:].lower() for each in dense} == {"i8"}


@pytest.mark.parametrize("name", ["openvino", "openvino-int8"])
def test_openvino_answers_several_texts_at_once(subject: Subject, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread each, as many as PyTorch has: the answers are those of one after the other."""
    needs_openvino(name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    runner = BACKENDS[name].make(subject)
    alone = runner.on_one_thread()
    assert alone is not None
    assert (alone.environment["threads"], alone.environment["streams"]) == (2, 2)
    inputs = [alone.prepare([row]) for row in ROWS * 3]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(alone, inputs))
    expected = torch.cat([answer(runner, [row]).logits for row in ROWS])
    assert (torch.cat(answers).view(3, *expected.shape) - expected).abs().max() < 1e-2


@pytest.mark.parametrize("name", METHODS)
def test_packed_weights_change_no_decision(name: str) -> None:
    """For every method: the same logits, trace and FLOPs, and all parts are packed before the first pass."""
    model = tiny_model("twelve_heads", shared_head=METHODS[name].stage in ("final", "gates"))
    subject = subject_of(model, name)
    runner = BACKENDS["torch-packed"].make(subject)
    parts = packed_parts(runner)
    expected, output = answer(subject.runner(), ROWS), answer(runner, ROWS)
    assert (output.logits - expected.logits).abs().max() < 1e-5
    for part, value in vars(expected.trace).items():
        assert torch.equal(getattr(output.trace, part), value), part
    assert all(map(torch.equal, runner.flops(output), subject.runner().flops(expected)))
    layers = {each: parts[each] for each in parts if ".encoder." in each}
    assert {each: packed_parts(runner)[each] for each in layers} == layers
    assert all(layers.values())
    assert not any(isinstance(module, PackedDense) for module in model.modules()), "the model of other arms"


def packed_parts(runner: Any) -> Mapping[str, list[tuple[int, int]]]:
    """The parts that each dense layer of the runner's model has packed; no dense layer is of another kind."""
    modules = dict(runner.model.named_modules())
    dense = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    packed = {name: module.packed for name, module in dense.items() if isinstance(module, PackedDense)}
    assert packed.keys() == dense.keys()
    assert all(weight.is_mkldnn for parts in packed.values() for weight, _ in parts.values())
    return {name: sorted(parts) for name, parts in packed.items()}


def test_dense_engines_run_dense_methods_alone(tmp_path: Path) -> None:
    """In a plan, every backend has its arms of the full and the truncated model, packed weights those of all."""
    settings = Settings(
        "sst2",
        methods=("static_depth", "entropy_exit"),
        backends=("torch-packed", "hf-eager", "hf-sdpa", "hf-bf16", "hf-compile"),
        knobs={"depth_mult": (0.5,)},
        backbone=str(write_backbone(tmp_path / "bert")),
        data_dir=write_sst2(tmp_path / "sst2", train=40, dev=40),
        store=tmp_path,
    )
    arms = {(arm.backend.name, arm.method.name) for arm in make_plan(settings).arms}
    dense = {(name, method) for name in settings.backends for method in ("full", "static_depth")}
    assert arms == dense | {("torch", "full"), ("torch-packed", "entropy_exit")}
    assert {name for name, backend in BACKENDS.items() if backend.dense} >= set(settings.backends[1:])


def test_calibration_rows_are_training_rows(tmp_path: Path) -> None:
    """Engines that learn ranges see a fixed draw of training rows, and no other."""
    from bench.backends.runners import CALIBRATION, make_subject

    settings = Settings(
        "sst2",
        methods=("full",),
        backbone=str(write_backbone(tmp_path / "bert")),
        data_dir=write_sst2(tmp_path / "sst2", train=400, dev=40),
        store=tmp_path,
    )
    plan = make_plan(settings)
    arm = plan.arms[0]
    models = {arm.job.id: tiny_model("four_heads", classes=2)}
    rows = make_subject(plan, arm, models, rows=None).calibration()
    train = [row["input_ids"] for row in plan.data.train.to_list()]
    assert len(rows) == CALIBRATION < len(train)
    assert all(row["input_ids"] in train for row in rows)
    assert [row["input_ids"] for row in rows] != train[:CALIBRATION]
    assert rows == make_subject(plan, arm, models, rows=None).calibration()
