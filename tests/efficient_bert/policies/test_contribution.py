"""AdapLeR's decisions and losses: hard and soft removal that agree, their cost, and two objectives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from efficient_bert import (
    Batch,
    EfficientBertForSequenceClassification,
    Execution,
    run,
)
from efficient_bert.cost.counters import count_with_fvcore, count_with_torch
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine import states as executions
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.recorder import Output
from efficient_bert.explainers.attribution import gradient_times_input
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.contribution import contribution_policy, contribution_shares, soft_removal
from efficient_bert.training.adapler.objectives import Losses, keep_in_bounds, new_probe, soft_losses, two_objectives
from tests.support.tiny import SHAPES, rows_of, tiny_batch, tiny_model

TOLERANCE = 1e-5
LENGTHS = [12, 3, 1, 7, 9, 5, 11, 2]


def lively_model(shape: str = "twelve_heads", *, size: int = 10) -> EfficientBertForSequenceClassification:
    """A tiny model whose predictors tell tokens apart, with thresholds that drop some in every layer."""
    model = tiny_model(shape, seed=4, contribution_size=size)
    generator = torch.Generator().manual_seed(1)
    contribution = model.contributions()
    with torch.no_grad():
        for parameter in contribution.predictors.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        contribution.eta.copy_(torch.linspace(0.4, 0.8, len(contribution.eta)))
    return model


MODEL = lively_model()
SALIENCY = torch.rand(len(LENGTHS), max(LENGTHS), generator=torch.Generator().manual_seed(3))


def hard(model: EfficientBertForSequenceClassification, batch: Batch, execution: Execution) -> Output:
    """One pass that drops tokens by contribution."""
    with torch.inference_mode():
        return run(model, batch, contribution_policy(model.contributions()), execution=execution)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gathered_equals_masked(shape: str, left: bool, attention: str) -> None:
    """Removed or hidden, the same tokens and logits, on ragged batches padded on either side."""
    model = lively_model(shape)
    model.set_attn_implementation(attention)
    batch = tiny_batch(LENGTHS, seed=5, left=left)
    gathered, masked = (hard(model, batch, way) for way in (Execution.GATHERED, Execution.MASKED))
    torch.testing.assert_close(gathered.logits, masked.logits, atol=TOLERANCE, rtol=0)
    assert torch.equal(gathered.trace.kept, masked.trace.kept)
    assert torch.equal(gathered.trace.decision_macs, masked.trace.decision_macs)
    tokens = gathered.trace.tokens
    assert (tokens[:, 0] < gathered.trace.length).any()
    assert (tokens[:, 1:] < tokens[:, :-1]).any(0).all()


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 10_000))
def test_an_example_does_not_see_its_company(lengths: list[int], seed: int) -> None:
    """In a batch an example gets the tokens, the logits and the cost that it gets alone."""
    batch = tiny_batch(lengths, seed=seed)
    together = hard(MODEL, batch, Execution.GATHERED)
    for row in range(len(lengths)):
        alone = hard(MODEL, rows_of(batch, [row]), Execution.GATHERED)
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=TOLERANCE, rtol=0)
        assert torch.equal(together.trace.kept[row].nonzero(), alone.trace.kept[0].nonzero())
        assert torch.equal(together.trace.decision_macs[row], alone.trace.decision_macs[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lengths", [LENGTHS, [16], [6, 6, 6]])
def test_flops_are_counted_alike(shape: str, lengths: list[int]) -> None:
    """Closed form and both counters agree to the digit, with the predictors' work on all tokens that they saw."""
    model, batch = lively_model(shape), tiny_batch(lengths, seed=5)
    policy = contribution_policy(model.contributions())
    trace = hard(model, batch, Execution.GATHERED).trace
    expected = int(trace_flops(trace, model.config).sum())
    assert count_with_torch(model, batch, policy) == expected
    assert count_with_fvcore(model, batch, policy) == expected
    assert expected < int(full_flops(trace.length, model.config).sum())
    entering = torch.cat([trace.length[:, None], trace.tokens[:, :-1]], dim=1)
    assert torch.equal(trace.decision_macs, entering * (model.config.hidden_size * 10 + 10))


def test_a_decision_by_hand() -> None:
    """Shares .5 .3 .15 .05 of four tokens at eta = .7 are held against .175: two stay; [CLS] stays at any share."""
    model = lively_model()
    contribution = model.contributions()
    shares = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]])
    with torch.no_grad():
        contribution.eta.fill_(0.7)
    contribution.predictors[0].forward = lambda hidden: shares.log()[hidden.new_ones(2, 4).bool()]
    decide = contribution_policy(contribution).decide
    assert decide is not None
    view = View(
        0,
        torch.zeros(2, 4, 48),
        torch.ones(2, 4).bool(),
        torch.arange(4).expand(2, 4),
        torch.full((2,), 4),
        torch.zeros(0, 2, 3),
    )
    decision = decide(view)
    assert decision.keep is not None
    assert decision.keep.tolist() == [[True, True, False, False], [False, False, True, True]]
    assert isinstance(decision.macs, torch.Tensor)
    assert decision.macs.tolist() == [4 * (48 * 10 + 10)] * 2
    kept = run(model, tiny_batch([4, 4]), Policy(lambda view: decision if view.depth == 0 else Decision())).trace.kept
    assert kept[:, 0].tolist() == [[True, True, False, False], [True, False, True, True]]


def test_a_threshold_is_the_same_in_any_company() -> None:
    """A share that lies on its threshold to the last digit has one fate, alone or among others."""
    model, kept = lively_model(), 0
    contribution = model.contributions()
    for seed in range(300):
        length = 3 + seed % 50
        hidden = torch.randn(1, length, 48, generator=torch.Generator().manual_seed(seed))
        mask, positions = torch.ones(1, length).bool(), torch.arange(length)[None]
        view = View(0, hidden, mask, positions, torch.tensor([length]), torch.zeros(0, 1, 3))
        with torch.no_grad():
            share = contribution.predictor(0)(hidden).softmax(-1)[0, seed % length]
            contribution.eta[0] = share.double() * length
            decide = contribution_policy(contribution).decide
            assert decide is not None
            ragged, even = decide(view).keep, decide(replace(view, unpadded=True)).keep
        assert ragged is not None
        assert even is not None
        assert torch.equal(ragged, even), seed
        kept += int(even[0, seed % length])
    assert 0 < kept < 300


def test_hard_thresholds_are_those_of_the_moment() -> None:
    """A policy knows them as they were when it was made; where tokens fade, as they are, which training changes."""
    model, batch = lively_model(), tiny_batch([9, 9])
    with torch.no_grad():
        policy = contribution_policy(model.contributions(), scale=0.5)
        before = [run(model, batch, policy, execution=way) for way in (Execution.GATHERED, Execution.SOFT)]
        model.contributions().eta.mul_(4)
        after = [run(model, batch, policy, execution=way) for way in (Execution.GATHERED, Execution.SOFT)]
        fresh = run(model, batch, contribution_policy(model.contributions(), scale=0.5))
    assert torch.equal(before[0].trace.kept, after[0].trace.kept)
    assert not torch.equal(before[1].logits, after[1].logits)
    assert fresh.trace.kept.sum() < after[0].trace.kept.sum()


def test_soft_removal_by_hand() -> None:
    """Sharpness 10 and threshold .025: at 0 it is -10 - .01, at the threshold -.01, at 1 it is 0 (beta = .1)."""
    shares = torch.tensor([0.0, 0.005, 0.0125, 0.02, 0.0249, 0.025, 0.03, 0.1, 0.5, 1.0])
    by_hand = [-10.01, -8.01, -5.01, -2.01, -0.05, -0.01, -0.009949, -0.009231, -0.005128, 0.0]
    found = soft_removal(shares, torch.tensor(0.025), sharpness=10)
    torch.testing.assert_close(found, torch.tensor(by_hand), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fidelity", Fidelity)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_the_sharpest_soft_removal_is_removal(fidelity: Fidelity, attention: str) -> None:
    """Without a finite sharpness, soft logits are the hard ones."""
    model, batch = lively_model(), tiny_batch(LENGTHS, seed=5)
    model.set_attn_implementation(attention)
    policy = contribution_policy(model.contributions(), fidelity=fidelity)
    soft = run(model, batch, policy, execution=Execution.SOFT)
    torch.testing.assert_close(soft.logits, hard(model, batch, Execution.MASKED).logits, atol=TOLERANCE, rtol=0)


def losses_of(
    model: EfficientBertForSequenceClassification,
    lengths: list[int] = LENGTHS,
    *,
    probe: Tensor | None = None,
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> Losses:
    """Losses at sharpness 10 on some random saliency."""
    batch = tiny_batch(lengths, seed=5)
    saliency = SALIENCY[: len(lengths), : batch.mask.shape[1]] * batch.mask
    classes = torch.arange(len(lengths)) % 3
    return soft_losses(
        model, batch, classes=classes, saliency=saliency, sharpness=10, probe=probe, fidelity=fidelity
    )  # fmt: skip


@pytest.mark.parametrize("left", [False, True])
def test_faded_tokens_are_left_out_of_layers(left: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and gradients are those of layers that run on every token, but the layers run on fewer."""
    ran: dict[float, int] = {}
    gradients: dict[float, list[Tensor]] = {}
    losses: dict[float, Losses] = {}
    batch = tiny_batch(LENGTHS, seed=5, left=left)
    maps = (SALIENCY * batch.mask).double()
    for bound in (executions.FADED, -math.inf):
        monkeypatch.setattr(executions, "FADED", bound)
        model = lively_model().double()
        cells: list[int] = []
        for layer in model.bert.encoder.layers:
            layer.register_forward_pre_hook(lambda layer, inputs, cells=cells: cells.append(inputs[0][..., 0].numel()))
        probe = new_probe(model.contributions())
        losses[bound] = soft_losses(
            model, batch, classes=torch.arange(8) % 3, saliency=maps, sharpness=1000, probe=probe
        )  # fmt: skip
        two_objectives(model, losses[bound], probe, gamma=0.5, phi=0.1)
        gradients[bound] = [own.grad for own in model.parameters() if own.grad is not None]
        ran[bound] = sum(cells)
    few, every = losses
    for name in ("classification", "contribution", "length"):
        torch.testing.assert_close(getattr(losses[few], name), getattr(losses[every], name), atol=1e-9, rtol=1e-7)
    for own, unpadded in zip(gradients[few], gradients[every], strict=True):
        torch.testing.assert_close(own, unpadded, atol=1e-9, rtol=1e-7)
    assert ran[few] < 0.9 * ran[every]


def test_both_fidelities_agree_where_nothing_is_at_stake() -> None:
    """In double precision the released constants move the losses by less than one in a hundred thousand."""
    model = lively_model().double()
    corrected, released = (losses_of(model, fidelity=fidelity) for fidelity in Fidelity)
    for name in ("classification", "contribution", "length"):
        torch.testing.assert_close(getattr(corrected, name), getattr(released, name), rtol=1e-5, atol=1e-9)
    summed, scaled = released.weighted_contribution(Fidelity.RELEASED), released.weighted_contribution()
    assert (scaled / summed).item() == pytest.approx(sum(range(13)) / sum(range(5)))


def test_losses_do_not_depend_on_padding() -> None:
    """The losses of a batch are the mean of its examples' own."""
    unpadded, rows = losses_of(MODEL), []
    for row, length in enumerate(LENGTHS):
        batch = rows_of(tiny_batch(LENGTHS, seed=5), [row])
        rows.append(
            soft_losses(
                MODEL, batch, classes=torch.tensor([row % 3]), saliency=SALIENCY[row : row + 1, :length], sharpness=10
            )
        )
    for name in ("classification", "contribution", "length"):
        mean = torch.stack([getattr(own, name) for own in rows]).mean(0)
        torch.testing.assert_close(getattr(unpadded, name), mean, atol=1e-5, rtol=1e-5)


def test_a_teacher_takes_its_part_of_the_classification() -> None:
    """The loss is a weighted mean of the gold classes' cross-entropy and -sum p log q with the teacher's p."""
    batch = tiny_batch(LENGTHS, seed=5)
    maps, gold = SALIENCY * batch.mask, torch.arange(8) % 3
    teacher = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))

    def classification(answers: Tensor, part: float) -> Tensor:
        return soft_losses(
            MODEL, batch, classes=gold, saliency=maps, sharpness=10, teacher=answers, distill=part
        ).classification

    certain = 1000 * torch.eye(3)
    alone = [classification(certain[torch.full((8,), label)], 1.0) for label in range(3)]
    by_gold = classification(certain[gold], 1.0)
    torch.testing.assert_close(by_gold, losses_of(MODEL).classification)
    torch.testing.assert_close(classification(teacher, 0.0), by_gold)
    uniform = classification(torch.zeros(8, 3), 1.0)
    torch.testing.assert_close(uniform, torch.stack(alone).mean())
    torch.testing.assert_close(classification(torch.zeros(8, 3), 0.25), 0.75 * by_gold + 0.25 * uniform)


def test_lengths_by_hand() -> None:
    """With thresholds near 0 nothing fades: the length loss is the mean length times the layers."""
    model = lively_model()
    with torch.no_grad():
        model.contributions().eta.fill_(1e-10)
    assert losses_of(model).length.item() == pytest.approx(4 * sum(LENGTHS) / len(LENGTHS), abs=0.7)
    batch = tiny_batch(LENGTHS, seed=5)
    sharp = soft_losses(
        model, batch, classes=torch.zeros(8, dtype=torch.int64), saliency=SALIENCY * batch.mask, sharpness=1e10
    )
    assert sharp.length.item() == pytest.approx(4 * sum(LENGTHS) / len(LENGTHS), rel=1e-6)


def gradients(gamma: float, phi: float) -> dict[str, Tensor]:
    """Name -> gradient after `two_objectives` on a fresh model."""
    model = lively_model()
    probe = new_probe(model.contributions())
    two_objectives(model, losses_of(model, probe=probe), probe, gamma=gamma, phi=phi)
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_each_objective_has_its_own_parameters() -> None:
    """gamma moves only the gradients of weights before the last decision, phi only those of eta and theta."""
    neither, cp, length = gradients(0.0, 0.0), gradients(0.5, 0.0), gradients(0.0, 0.5)
    assert not [name for name in neither if name.startswith("exits.")]
    behind = ("classifier.", "bert.pooler.", "bert.encoder.layer.3.")
    for name, value in neither.items():
        threshold = name in ("contribution.eta", "contribution.theta")
        assert torch.equal(value, cp[name]) == (threshold or name.startswith(behind)), name
        assert torch.equal(value, length[name]) != threshold, name
    assert all(bool(value.isfinite().all()) for found in (neither, cp, length) for value in found.values())


def test_the_gradient_of_eta_is_the_slope() -> None:
    """In double precision eta's gradient equals a central difference of CE + phi LEN."""
    model = lively_model().double()
    eta = model.contributions().eta
    probe = new_probe(model.contributions())
    two_objectives(model, losses_of(model, probe=probe), probe, gamma=0.3, phi=0.1)
    assert eta.grad is not None
    for layer in range(len(eta)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                eta[layer] += step
                losses = losses_of(model)
                ends.append((losses.classification + 0.1 * losses.length).item())
                eta[layer] -= step
        assert eta.grad[layer].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("fidelity", Fidelity)
def test_thresholds_stay_in_bounds(fidelity: Fidelity) -> None:
    """eta returns to [.01, 1]; theta stays positive unless the released code is followed."""
    contribution = lively_model().contributions()
    with torch.no_grad():
        contribution.eta.copy_(torch.tensor([-1.0, 0.3, 0.01, 2.0]))
        contribution.theta.copy_(torch.tensor([-0.5, 1.5, 0.5]))
    keep_in_bounds(contribution, fidelity)
    torch.testing.assert_close(contribution.eta.detach(), torch.tensor([0.01, 0.3, 0.01, 1.0]))
    assert contribution.theta[0].item() == pytest.approx(-0.5 if fidelity == Fidelity.RELEASED else 0.001)


def test_saliency_equals_hugging_faces() -> None:
    """The same numbers from a hook on the embeddings of `BertForSequenceClassification`, and the model as before."""
    model, batch = tiny_model().train(), tiny_batch([6, 4])
    fields = {name: value for name, value in model.config.to_dict().items() if name != "model_type"}
    theirs = BertForSequenceClassification(BertConfig(**fields)).eval()
    wanted = theirs.state_dict()
    theirs.load_state_dict({name: value for name, value in model.state_dict().items() if name in wanted})
    seen: list[Tensor] = []
    theirs.bert.embeddings.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = theirs(batch.input_ids, batch.mask.long(), batch.token_type_ids).logits
    (gradient,) = torch.autograd.grad(logits[0, 2] + logits[1, 0], seen[0])
    expected = (seen[0] * gradient).pow(2).sum(-1).sqrt().detach() * batch.mask
    with torch.no_grad():
        found = gradient_times_input(model, batch, torch.tensor([2, 0]))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_padding_takes_no_share() -> None:
    """A large number on padding changes nothing; only the released softmax lets it swamp the others."""
    logits, mask = torch.tensor([[0.0, 0.0, 60.0]]), torch.tensor([[True, True, False]])
    corrected, released = (contribution_shares(logits, mask, (), fidelity=fidelity) for fidelity in Fidelity)
    assert corrected.tolist() == [[0.5, 0.5, 0.0]]
    assert released.sum().item() == pytest.approx(2 * math.exp(-60) / 1e-15, rel=1e-3)


def test_half_precision_carries_the_losses() -> None:
    """Under autocast to bfloat16 the losses are near those of single precision, and gradients are finite."""
    model, expected = lively_model(), losses_of(MODEL)
    probe = new_probe(model.contributions())
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, probe=probe)
    two_objectives(model, losses, probe, gamma=0.5, phi=0.1)
    assert losses.length.dtype == torch.float32
    for name in ("classification", "contribution", "length"):
        torch.testing.assert_close(getattr(losses, name), getattr(expected, name), rtol=0.1, atol=0.05)
    assert all(bool(own.grad.isfinite().all()) for own in model.parameters() if own.grad is not None)
