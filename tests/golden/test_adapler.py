"""AdapLeR beside numbers of the authors' code: scores, masks, decisions, saliency, losses, gradients and FLOPs.

The set is read from the folder `adapler` in GOLDEN_DIR; its README names the arrays. Sizes, classes and sharpnesses
come from the files, so another set in the same format will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from efficient_bert import Batch, Execution, run
from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost.adapler_published import (
    adapler_flops,
    bert_flops,
    published_lengths,
    published_products,
    speedup,
)
from efficient_bert.engine.recorder import Output
from efficient_bert.explainers.attribution import gradient_times_input
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.contribution import HARD, contribution_policy, presence, soft_removal
from efficient_bert.training.adapler.objectives import Losses, new_probe, soft_losses, two_objectives
from tests.golden.adapler_set import FOLDER, Golden, our_name

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference outputs in {FOLDER}; set GOLDEN_DIR")

SOFT_TOLERANCES = {
    "logits": {10: 5e-5, 100: 5e-5, 1000: 2e-5, HARD: 5e-6},
    "scores": {10: 1e-3, 100: 2e-4, 1000: 1e-5, HARD: 5e-6},
    "delta": {10: 1e-4, 100: 1e-5, 1000: 2e-7, HARD: 5e-8},
    "eff_mask": {10: 2e-3, 100: 2e-3, 1000: 5e-4, HARD: 0.0},
    "lengths": {10: 2e-3, 100: 2e-3, 1000: 5e-4, HARD: 0.0},
}
"""Of float32, per array and sharpness, as the set's README gives them; so are those below."""

LOSS_TOLERANCES = {"ce": 2e-6, "cp": 2e-5, "len": 2e-4, "cp_per_layer": 2e-6, "main": 4e-6, "thresholds": 4e-6}
GRADIENT_TOLERANCES = {
    "contribution_predictors.0.": 5e-2 / 4.3,
    "contribution_predictors": 5e-6 / 0.11,
    "bert": 1e-5 / 0.012,
    "eta": 5e-2 / 6.8,
    "theta": 2e-5 / 0.0085,
}
"""Of float32, as a fraction of the largest entry, of all tensors of a predictor together."""


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """The set in both precisions."""
    return Golden(request.param)


def of_steps(golden: Golden, name: str) -> Iterator[tuple[Output, Tensor, float]]:
    """(pass, expected array, tolerance) for each sharpness."""
    for output, expected, sharpness in zip(
        golden.soft, golden.expected[f"soft_{name}"], golden.adapler["lambdas"], strict=True
    ):
        tolerances = SOFT_TOLERANCES[name]
        yield output, expected, tolerances.get(sharpness, max(tolerances.values()))


def left(golden: Golden, output: Output) -> list[Tensor]:
    """What is left of each token before each layer, and at the end."""
    fades = [decision.fade for decision in output.decisions if decision.fade is not None]
    return [
        presence(golden.batch.mask, fades[:layer], dtype=golden.dtype, fidelity=Fidelity.RELEASED)
        for layer in range(len(fades) + 1)
    ]


def scores(output: Output) -> Tensor:
    """(B, N, L) shares before each layer."""
    return torch.stack([decision.scores for decision in output.decisions if decision.scores is not None], dim=1)


@torch.no_grad()
def test_plain_logits(golden: Golden) -> None:
    """Without removal the model is BERT."""
    golden.check(run(golden.model, golden.batch).logits, golden.expected["plain_logits"], atol=5e-6)


def test_soft_removal(golden: Golden) -> None:
    """The removal function on a grid of sharpness, threshold and share, at the threshold itself too."""
    shares, thresholds = golden.expected["softfn_x"], golden.expected["softfn_delta"]
    for sharpness, expected in zip(golden.adapler["lambdas"], golden.expected["softfn_value"], strict=True):
        found = soft_removal(shares, thresholds[:, None], sharpness=sharpness)
        rtol, atol = (1e-9, 1e-10) if golden.exact else (1e-4, 1e-6)
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_soft_logits(golden: Golden) -> None:
    """Soft passes give the released logits at every sharpness."""
    for output, expected, tolerance in of_steps(golden, "logits"):
        golden.check(output.logits, expected, atol=tolerance)


def test_soft_scores(golden: Golden) -> None:
    """The predictors' shares before every layer."""
    for output, expected, tolerance in of_steps(golden, "scores"):
        golden.check(scores(output), expected, atol=tolerance)


def test_soft_masks_and_lengths(golden: Golden) -> None:
    """What is left of each token after every removal, [CLS] aside, and the soft lengths with it."""
    for output, expected, tolerance in of_steps(golden, "eff_mask"):
        after = torch.stack(left(golden, output)[1:], dim=1)
        after[:, :, 0] = 0
        golden.check(after, expected, atol=tolerance)
    for output, expected, tolerance in of_steps(golden, "lengths"):
        golden.check(torch.stack(left(golden, output)[1:], dim=1).sum(2), expected, atol=tolerance)


def test_thresholds(golden: Golden) -> None:
    """eta over the length that is left, before every layer."""
    eta = golden.model.contributions().eta
    for output, expected, tolerance in of_steps(golden, "delta"):
        golden.check(eta / torch.stack(left(golden, output)[:-1], dim=1).sum(2), expected, atol=tolerance)


@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
@pytest.mark.parametrize("alone", [True, False])
@torch.no_grad()
def test_hard_decisions(golden: Golden, execution: Execution, alone: bool) -> None:
    """Kept tokens exactly and logits, gathered and masked, one example at a time and all at once."""
    policy = contribution_policy(golden.model.contributions(), fidelity=Fidelity.RELEASED)
    rows = [slice(row, row + 1) for row in range(len(golden.labels))] if alone else [slice(None)]
    parts = (golden.batch.input_ids, golden.batch.mask, golden.batch.token_type_ids)
    for row in rows:
        longest = int(golden.batch.mask[row].sum(1).max())
        output = run(golden.model, Batch(*(part[row, :longest] for part in parts)), policy, execution=execution)
        golden.check(output.logits, golden.expected["hard_logits"][row], atol=5e-6)
        assert output.trace.tokens.tolist() == golden.expected["hard_num_kept"][row].tolist()
        expected = golden.expected["hard_kept_idx"][row]
        for example, kept in enumerate(output.trace.kept):
            for layer, places in enumerate(kept):
                wanted = expected[example, layer]
                assert places.nonzero()[:, 0].tolist() == wanted[wanted >= 0].tolist()


@torch.no_grad()
def test_hard_scores(golden: Golden) -> None:
    """Shares over the tokens that enter each layer, at their original positions, and their thresholds."""
    contribution = golden.model.contributions()
    policy = contribution_policy(contribution, fidelity=Fidelity.RELEASED)
    output = run(golden.model, golden.batch, policy, execution=Execution.MASKED, record=True)
    golden.check(scores(output), golden.expected["hard_scores"], atol=2e-6)
    entering = torch.cat([output.trace.length[:, None], output.trace.tokens[:, :-1]], dim=1)
    golden.check(contribution.eta / entering, golden.expected["hard_delta"], atol=1e-7)


@torch.no_grad()
def test_length_reduced_call(golden: Golden) -> None:
    """`model(..., lr_mode=True)` answers a batch with the hard logits and the kept positions of each layer."""
    batch = golden.batch
    output = golden.model(batch.input_ids, batch.mask, batch.token_type_ids, lr_mode=True)
    golden.check(output.logits, golden.expected["hard_logits"], atol=5e-6)
    for layer, kept in enumerate(output.kept_positions):
        expected = golden.expected["hard_kept_idx"][:, layer, : kept.shape[1]]
        assert kept.tolist() == expected.tolist()


def test_saliency(golden: Golden) -> None:
    """The norm of gradient times input of the gold logit at the embedding output."""
    found = gradient_times_input(golden.model, golden.batch, golden.labels)
    golden.check(found, golden.expected["saliency"], atol=2e-6)
    assert all(parameter.grad is None for parameter in golden.model.parameters())


def losses_of(golden: Golden, probe: Tensor | None = None) -> Losses:
    """The released losses of the whole batch."""
    return soft_losses(
        golden.model,
        golden.batch,
        classes=golden.labels,
        saliency=golden.expected["saliency"],
        sharpness=golden.adapler["lambda_losses"],
        probe=probe,
        fidelity=Fidelity.RELEASED,
    )


def test_losses(golden: Golden) -> None:
    """The three losses, the divergence of each layer, and both objectives."""
    losses = losses_of(golden)
    cp, settings = losses.weighted_contribution(Fidelity.RELEASED), golden.adapler
    found = {
        "ce": losses.classification,
        "cp": cp,
        "len": losses.length,
        "cp_per_layer": losses.contribution,
        "main": losses.classification + settings["gamma"] * cp,
        "thresholds": losses.classification + settings["phi"] * losses.length,
    }
    for name, value in found.items():
        golden.check(value, golden.expected[f"loss_{name}"], atol=LOSS_TOLERANCES[name])


def gradients(golden: Golden, *, gamma: float, phi: float) -> dict[str, Tensor]:
    """Gradients of both objectives, by our names."""
    golden.model.zero_grad()
    probe = new_probe(golden.model.contributions())
    two_objectives(golden.model, losses_of(golden, probe), probe, gamma=gamma, phi=phi, fidelity=Fidelity.RELEASED)
    found = {name: value.grad for name, value in golden.model.named_parameters() if value.grad is not None}
    golden.model.zero_grad()
    return found


def tolerance(golden: Golden, name: str) -> float:
    """Of a gradient in float32: a fraction of the largest entry in its family, of whichever objective."""
    parameter = name.partition(".")[2]
    fraction = next(value for start, value in GRADIENT_TOLERANCES.items() if parameter.startswith(start))
    family = ".".join(parameter.split(".")[:2]) if parameter.startswith("contribution_predictors") else parameter
    found = {other: value for other, value in golden.expected.items() if other.startswith("grad_")}
    kin = [value for other, value in found.items() if other.partition(".")[2].startswith(family)]
    return fraction * max(float(value.abs().max()) for value in kin)


@pytest.mark.parametrize("objective", ["whole", "classification"])
def test_gradients(golden: Golden, objective: str) -> None:
    """Gradients of both objectives, and those of the cross-entropy alone, for every parameter that the set names."""
    settings, whole = golden.adapler, objective == "whole"
    found = gradients(golden, gamma=settings["gamma"] if whole else 0.0, phi=settings["phi"] if whole else 0.0)
    starts = ("grad_main.", "grad_thresholds.") if whole else ("grad_ce.",)
    theta = golden.model.contributions().theta.detach()
    found["theta_probe"] = found["contribution.theta"] * (theta + 1e-7)
    names = [name for name in golden.expected if name.startswith(starts)]
    assert names
    for name in names:
        ours = found[our_name(name.partition(".")[2])]
        golden.check(ours, golden.expected[name], atol=tolerance(golden, name))


def flops_file() -> dict[str, Any]:
    """The set's FLOPs figures."""
    figures: dict[str, Any] = json.loads((FOLDER / "flops.json").read_text(encoding="utf8"))
    return figures


def test_flops_of_profiles() -> None:
    """Released FLOPs of given token counts, to the digit, and the ratio of sums."""
    figures = flops_file()
    pairs = []
    for profile in figures["profiles"]:
        length, tokens = torch.tensor([profile["n0"]]), torch.tensor([profile["layers"]])
        assert int(bert_flops(length, profile["C"])) == profile["flops_bert"]
        assert int(adapler_flops(tokens, profile["C"])) == profile["flops_adapler"]
        if profile["C"] == 2:
            pairs.append((length, tokens))
    lengths, tokens = (torch.cat(part) for part in zip(*pairs, strict=True))
    assert speedup(lengths, tokens, 2) == pytest.approx(figures["profiles_speedup"]["speedup"], rel=1e-12)
    base = EfficientBertConfig(contribution_size=32)  # BERT-base's sizes
    spent, whole = published_products(torch.cat([lengths[:, None], tokens], dim=1), base)
    for row in range(len(lengths)):
        part = slice(row, row + 1)
        assert float(whole[row] / spent[row]) == pytest.approx(speedup(lengths[part], tokens[part], 2), rel=0.003)


def test_flops_of_the_data_set(golden: Golden) -> None:
    """Lengths as the release counts them and as they are, FLOPs of each example, and both speed-ups."""
    figures = flops_file()["dataset"]
    policy = contribution_policy(golden.model.contributions(), sharpness=HARD, fidelity=Fidelity.RELEASED)
    with torch.no_grad():
        soft = run(golden.model, golden.batch, policy, execution=Execution.SOFT, record=True)
        hard = run(golden.model, golden.batch, policy, execution=Execution.MASKED)
    assert soft.logits.argmax(1).tolist() == figures["preds"]
    classes = max(figures["preds"]) + 1
    assert classes == figures["C"]
    released = published_lengths(scores(soft).unbind(1), golden.model.contributions().eta.detach())
    correct = torch.cat([released[:, :-1], hard.trace.tokens[:, -1:]], dim=1)
    for name, lengths in (("released", released), ("correct", correct)):
        assert lengths.tolist() == figures[f"lengths_{name}"]
        assert bert_flops(lengths[:, 0], classes).tolist() == figures["flops_bert"]
        assert adapler_flops(lengths[:, 1:], classes).tolist() == figures[f"flops_adapler_{name}"]
        found = speedup(lengths[:, 0], lengths[:, 1:], classes)
        assert found == pytest.approx(figures[f"speedup_{name}"], rel=1e-12)
