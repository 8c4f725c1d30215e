"""Contribution predictors as a part of the model: saved, loaded, initialised, and called with `lr_mode`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification, Execution, InputError, run
from efficient_bert.methods.adapler import ADAPLER
from efficient_bert.model import LengthReducedOutput
from tests.efficient_bert.policies.test_contribution import MODEL, TOLERANCE
from tests.support.tiny import VOCABULARY, tiny_batch, tiny_model, tokenizer_folder


def test_predictors_are_saved_with_the_model(tmp_path: Path) -> None:
    """`save_pretrained` and `from_pretrained` keep predictors and thresholds to the bit."""
    MODEL.save_pretrained(tmp_path)
    loaded = EfficientBertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.contribution_size == 10
    for name, value in MODEL.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("loaded", [False, True])
def test_fresh_predictors_are_initialised(tmp_path: Path, loaded: bool) -> None:
    """New predictors, also beside a checkpoint without any, are truncated normal (.02), eta is .25, theta 1."""
    if loaded:
        tiny_model(contribution_size=0).save_pretrained(tmp_path)
        config = EfficientBertConfig.from_pretrained(tmp_path, contribution_size=200)
        model = EfficientBertForSequenceClassification.from_pretrained(tmp_path, config=config)
    else:
        model = EfficientBertForSequenceClassification(replace_size(200))
    contribution = model.contributions()
    assert contribution.eta.tolist() == [0.25] * 4
    assert contribution.theta.tolist() == [1.0] * 3
    for layer in range(4):
        predictor = contribution.predictor(layer)
        for dense in (predictor.dense, predictor.score):
            assert dense.weight.abs().max() <= 0.04
            assert not dense.bias.any()
        # a normal variable cut at two standard deviations keeps .88 of its spread
        assert predictor.dense.weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.03)
    assert sum(parameter.numel() for parameter in contribution.predictors.parameters()) == 4 * (
        48 * 200 + 200 + 200 + 1
    )


def replace_size(size: int) -> EfficientBertConfig:
    """The configuration of a tiny model with predictors of this size."""
    return EfficientBertConfig(**{**tiny_model().config.to_dict(), "contribution_size": size})


def test_a_negative_size_is_refused() -> None:
    """The message says the value and the rule."""
    with pytest.raises(InputError, match="contribution_size is -1, but"):
        replace_size(-1)


def test_length_reduction_from_text(tmp_path: Path) -> None:
    """A sentence, and a batch of two, straight from a tokenizer: logits, loss and the positions that each layer saw."""
    folder = tokenizer_folder(tmp_path, words=["a", "sample", "text", "."])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) < VOCABULARY
    with torch.inference_mode():
        output = MODEL(**tokenizer("a sample text.", return_tensors="pt"), lr_mode=True)
        pair = MODEL(
            **tokenizer(["a sample text.", "text a."], padding=True, return_tensors="pt"),
            lr_mode=True,
            labels=torch.tensor([0, 2]),
        )
    assert isinstance(output, LengthReducedOutput)
    assert isinstance(pair, LengthReducedOutput)
    assert output.logits is not None
    assert pair.logits is not None
    assert pair.loss is not None
    assert output.logits.shape == (1, 3)
    assert output.kept_positions is not None
    assert pair.kept_positions is not None
    assert len(output.kept_positions) == 4
    assert output.kept_positions[-1].shape[1] < 6
    torch.testing.assert_close(pair.logits[0], output.logits[0], atol=TOLERANCE, rtol=0)
    assert pair.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(pair.logits, torch.tensor([0, 2])).item()
    )
    for alone, together in zip(output.kept_positions, pair.kept_positions, strict=True):
        kept = together[0][together[0] >= 0]
        assert kept.tolist() == alone[0].tolist()
        assert kept[0] == 0
        assert together.shape == (2, int((together >= 0).sum(1).max()))


def test_length_reduction_needs_predictors() -> None:
    """Without predictors, or with states wanted, the call says why it cannot."""
    with pytest.raises(InputError, match="no contribution predictors"):
        tiny_model(contribution_size=0)(tiny_batch([3]).input_ids, lr_mode=True)
    with pytest.raises(InputError, match="ask without lr_mode"):
        MODEL(tiny_batch([3]).input_ids, lr_mode=True, output_hidden_states=True)


@torch.inference_mode()
def test_the_release_counts_a_gathered_pass_as_a_masked_one() -> None:
    """By hand: a layer and its predictor run on what entered the next one, the last on shares above eta; one head."""
    batch = tiny_batch([9, 4, 1, 14])
    policy = ADAPLER.policy(MODEL, {"eta_scale": 1.0})
    assert ADAPLER.published_flops is not None
    counted = {}
    for execution in (Execution.GATHERED, Execution.MASKED):
        output = run(MODEL, batch, policy, execution=execution)
        counted[execution] = [part.tolist() for part in ADAPLER.published_flops(MODEL, output, {"eta_scale": 1.0})]
    assert counted[Execution.GATHERED] == counted[Execution.MASKED]
    eta = MODEL.contributions().eta[-1]
    for row, length in enumerate(batch.mask.sum(1).tolist()):
        shares = output.decisions[-1].scores
        assert shares is not None
        tokens = [*output.trace.tokens[row, :3].tolist(), int((shares[row] > eta).sum())]
        # a layer on n tokens: four D x D and two D x F products for each, and two D-long ones for each pair
        predictor = 48 * MODEL.config.contribution_size + MODEL.config.contribution_size
        layers = sum(n * (4 * 48 * 48 + 2 * 48 * 192 + predictor) + 2 * n * n * 48 for n in tokens)
        assert counted[Execution.MASKED][0][row] == 2 * (layers + 48 * (48 + 3))
        whole = 4 * (length * (4 * 48 * 48 + 2 * 48 * 192) + 2 * length * length * 48)
        assert counted[Execution.MASKED][1][row] == 2 * (whole + 48 * (48 + 3))
