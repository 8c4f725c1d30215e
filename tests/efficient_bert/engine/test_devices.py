"""On a GPU that is not there: mixed devices raise, and every pass of the engine stays on the one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from bench.registry import EXPLAINERS, METHODS, all_knobs
from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.explainers import Question
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.policies.exit_rules import replay
from tests.efficient_bert.training.test_training_loop import rows
from tests.support.accelerator import CUDA, MixedDevicesError, accelerator
from tests.support.tiny import everything, tiny_batch, tiny_model

MODEL = tiny_model(classes=2)
BATCH = tiny_batch([7, 3, 5])


@pytest.fixture
def gpu() -> Iterator[None]:
    """A GPU, for as long as the test runs."""
    with accelerator():
        yield


def moved(model: EfficientBertForSequenceClassification = MODEL) -> EfficientBertForSequenceClassification:
    """A copy of the model on the GPU."""
    copy = deepcopy(model)
    nn.Module.to(copy, "cuda")
    return copy


def moved_batch(batch: Batch = BATCH) -> Batch:
    """The batch on the GPU."""
    return Batch(*(part.to("cuda") for part in (batch.input_ids, batch.mask, batch.token_type_ids)))


MIXES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": lambda here, there: here + there,
    "number of the GPU": lambda here, there: here + there.sum(),
    "product": lambda here, there: here.float() @ there.float().T,
    "choice": lambda here, there: torch.where(there > 0, here, 0),
    "join": lambda here, there: torch.cat([here, there]),
    "join of numbers": lambda here, there: torch.stack([here.sum(), there.sum()]),
    "rows": lambda here, there: there.index_select(0, torch.arange(2)),
    "index from the GPU": lambda here, there: here[there.argmax(0)],
    "values to write": lambda here, there: there.index_put_((torch.arange(2),), here[:2]),
    "list": lambda here, there: there + torch.tensor([1] * there.shape[1]),
    "in place": lambda here, there: here.add_(there),
    "view": lambda here, there: there.clone()[:, 1:].add_(here[:, 1:]),
    "draws": lambda here, there: there.float().uniform_(generator=torch.Generator()),
    "weights": lambda here, there: MODEL.bert.embeddings.word_embeddings(there),
    "loss": lambda here, there: nn.functional.cross_entropy(there.float(), here.argmax(1)),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("inference", [False, True])
def test_mixed_devices_raise(name: str, inference: bool) -> None:
    """What a GPU refuses raises, with and without inference mode."""
    with torch.inference_mode(inference), pytest.raises(MixedDevicesError):
        MIXES[name](torch.ones(3, 4, dtype=torch.int64), torch.ones(3, 4, dtype=torch.int64, device="cuda"))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("inference", [False, True])
def test_what_a_gpu_takes_gives_right_numbers(inference: bool) -> None:
    """Numbers, indices and copies from the CPU go; results are on the GPU; numpy wants a copy."""
    with torch.inference_mode(inference):
        there = torch.arange(6, device="cuda").view(2, 3)
        assert there.device == CUDA
        assert (there + torch.tensor(1)).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert there[torch.tensor([1])].tolist() == there[[1]].tolist() == [[3, 4, 5]]
        there[torch.tensor([0]), 1] = 9
        there[:, 2].fill_(7)
        assert there.tolist() == [[0, 9, 7], [3, 4, 7]]
        here = torch.zeros(2, 3, dtype=torch.int64)
        assert here.copy_(there) is here
        assert here.device.type == "cpu"
        away, back = here.to("cuda"), there.cpu()
        here.zero_()
        there.zero_()
        assert away.tolist() == back.tolist() == [[0, 9, 7], [3, 4, 7]]
        assert there.new_tensor([1, 2]).device == torch.tensor([1], device=CUDA).device == CUDA
        assert torch.tensor([4, 5], device=there.device).sum().item() == 9
        assert away.cpu().numpy().tolist() == back.tolist()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
    dense = nn.Linear(2, 1, device="cuda").double()
    assert dense(torch.ones(1, 2, dtype=torch.float64, device="cuda")).dtype == dense.weight.dtype == torch.float64


@pytest.mark.usefixtures("gpu")
def test_a_policy_that_mixes_devices_is_caught() -> None:
    """Thresholds that were left on the CPU raise as soon as they meet states of the GPU."""
    thresholds = torch.full((7,), 0.1)

    def mixing(view: View) -> Decision:
        return Decision(keep=view.hidden[..., 0] > thresholds[: view.mask.shape[1]])

    run(MODEL, BATCH, Policy(mixing))
    with pytest.raises(MixedDevicesError, match=r"\(3, 7\) on cuda:0, \(7,\) on cpu"):
        run(moved(), moved_batch(), Policy(mixing))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_the_gpu(name: str) -> None:
    """Shares are counted on it; under each execution logits are on it and equal the CPU's, as does the trace."""
    method, model, batch = METHODS[name], moved(), moved_batch()
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    for counted, executions in ((None, list(Execution)), (rows(20, 1), [Execution.GATHERED])):
        here, there = (method.policy(each, method.calibrate(each, counted, knobs)) for each in (MODEL, model))
        for execution in executions:
            with torch.inference_mode():
                expected = run(MODEL, BATCH, here, execution=execution)
                output = run(model, batch, there, execution=execution)
            assert output.logits.device == CUDA
            torch.testing.assert_close(output.logits.cpu(), expected.logits, atol=1e-5, rtol=0)
            for field, value in vars(expected.trace).items():
                assert torch.equal(getattr(output.trace, field), value), field


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("execution", Execution)
def test_every_decision_at_once_runs_on_the_gpu(execution: Execution, attention: str) -> None:
    """Tokens, widths and exits together, fused and eager attention, recorded or not, with gradients."""
    here = tiny_model(attn_implementation=attention)
    there = moved(here)

    def on_device(view: View) -> Decision:
        decision = everything(View(**{**vars(view), "mask": view.mask.cpu(), "hidden": view.hidden.cpu()}))
        moved = {name: part.to(view.mask.device) for name, part in vars(decision).items() if isinstance(part, Tensor)}
        return Decision(**moved)

    for record in {False, execution != Execution.GATHERED}:
        policy = Policy(on_device, exits=(1, 2, 3))
        expected = run(here, BATCH, policy, execution=execution, record=record)
        output = run(there, moved_batch(), policy, execution=execution, record=record)
        torch.testing.assert_close(output.logits.cpu(), expected.logits, atol=1e-5, rtol=0)
        assert {state.device for state in (*output.hidden_states, *output.attentions)} <= {CUDA}
    output.logits.sum().backward()
    expected.logits.sum().backward()
    for (name, one), other in zip(there.named_parameters(), here.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None
            continue
        assert one.grad is not None
        assert one.grad.device == CUDA
        torch.testing.assert_close(one.grad.cpu(), other.grad, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.leaving])
def test_who_leaves_is_read_off_on_the_gpu(name: str) -> None:
    """A pass in which nobody leaves is replayed with the leaving rule."""
    method, model = METHODS[name], moved()
    assert method.leaving is not None
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    policy = method.policy(model, {**knobs, method.leaving.knob: method.leaving.never})
    with torch.inference_mode():
        read = replay(run(model, moved_batch(), policy), method.leaving.rule(model.config, knobs[method.leaving.knob]))
        there = run(model, moved_batch(), method.policy(model, knobs))
    torch.testing.assert_close(read.logits.cpu(), there.logits.cpu(), atol=1e-5, rtol=0)
    assert torch.equal(read.trace.kept, there.trace.kept)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", EXPLAINERS)
def test_every_explainer_runs_on_the_gpu(name: str) -> None:
    """Scores equal the CPU's."""
    scores, two = [], tiny_batch([3, 2])
    for model, batch in ((MODEL, two), (moved(), moved_batch(two))):
        marked = batch.mask & (batch.mask.cumsum(1) % 2 == 0)
        before = (batch.mask.cumsum(1) - 1) / batch.mask.sum(1, keepdim=True)
        classes = torch.tensor([1, 0], device=batch.mask.device)
        policy = contribution_policy(model.contributions(), scale=3.0)
        scores.append(EXPLAINERS[name].explain(Question(model, batch, classes, marked, before, policy)).cpu())
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("gpu")
def test_the_hugging_face_interface_runs_on_the_gpu() -> None:
    """`forward` with labels, and in `lr_mode`, whose kept positions are those on the CPU."""
    inputs = {"input_ids": BATCH.input_ids, "attention_mask": BATCH.mask, "token_type_ids": BATCH.token_type_ids}
    inputs["labels"] = torch.tensor([1, 0, 1])
    there = {name: value.to("cuda") for name, value in inputs.items()}
    expected, output = MODEL(**inputs, lr_mode=True), moved()(**there, lr_mode=True)
    torch.testing.assert_close(output.loss.cpu(), expected.loss)
    assert [kept.tolist() for kept in output.kept_positions] == [kept.tolist() for kept in expected.kept_positions]
    torch.testing.assert_close(moved()(**there).loss.cpu(), MODEL(**inputs).loss)
