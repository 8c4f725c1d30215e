"""Session-wide fixtures: real sentences, and the packaged weights under Hugging Face's model and ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import entropy
from selenium import webdriver
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from bench.backbones.resolving import resolve, tokenizer
from bench.data.loading import load_split
from bench.errors import InputError
from bench.registry import TASKS
from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.engine.decisions import Policy
from efficient_bert.model import rebuild
from efficient_bert.policies.gates import WidthGate
from efficient_bert.training.adapler.stage import with_contribution
from efficient_bert.training.exits import with_exits
from tests.support.browser import started
from tests.support.tiny import randomise

DATA = "EFFICIENT_BERT_DATA"


@dataclass(frozen=True)
class MiniLM:
    """The packaged weights: Hugging Face's model, a folder it is saved in, and ours with every adaptive part."""

    theirs: BertForSequenceClassification
    folder: Path
    exits: EfficientBertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase

    def ours(self, attention: str) -> EfficientBertForSequenceClassification:
        """Our model from Hugging Face's checkpoint."""
        model: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification.from_pretrained(
            self.folder, attn_implementation=attention
        )
        model.eval()
        return model

    def encoded(self, texts: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Padded tensors of sentences and pairs, cut at 32 word pieces."""
        columns = list(zip(*texts, strict=True))
        pieces = self.tokenizer(*map(list, columns), truncation=True, max_length=32, padding=True, return_tensors="pt")
        return {name: pieces[name] for name in ("input_ids", "attention_mask", "token_type_ids")}

    def batches(self, texts: Sequence[tuple[str, ...]], *, size: int) -> list[Batch]:
        """Padded batches in the order of the texts."""
        return [Batch.of(self.encoded(texts[start : start + size])) for start in range(0, len(texts), size)]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser; tests that ask for it are skipped without one (`tests.support.browser.needs_browser`)."""
    browser = started(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> MiniLM:
    """MiniLM with a random classifier of three classes whose logits vary between sentences."""
    try:
        backbone = resolve("minilm")
    except InputError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    theirs = BertForSequenceClassification.from_pretrained(backbone.folder, num_labels=3).eval()
    with torch.no_grad():
        theirs.classifier.weight.normal_(std=0.4)
        theirs.classifier.bias.normal_()
    folder = tmp_path_factory.mktemp("minilm")
    theirs.save_pretrained(folder)
    ours: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification.from_pretrained(folder)
    whole = rebuild(with_contribution(with_exits(ours), 32), num_gates=6, widths=[0.25, 0.5, 0.75, 1.0])
    whole.eval()
    whole.config.length_profile = [0.95, 0.8, 0.6, 0.5, 0.3, 0.2]
    whole.config.gate_profile = [[0.4, 0.3, 0.2, 0.1]] * 6
    whole.config.exit_profile = [[0.0] * 6, [1.0, 0.2, 0.1, 0.2, 0.1, 0.1]]
    whole.config.staying_profile = [[[0.4, 0.3, 0.2, 0.1]] * 6] * 2
    found = MiniLM(theirs, folder, whole, tokenizer(backbone))
    aim_exits(found.exits, Batch.of(found.encoded(demo(32))))
    aim_predictors(found.exits)
    aim_gates(found.exits, Batch.of(found.encoded(demo(32))))
    return found


def aim_exits(model: EfficientBertForSequenceClassification, batch: Batch) -> None:
    """Random exit heads, shifted so that the sentences fall on both sides of each decision.

    The [CLS] states of the packaged weights differ little before the last layers. Heads at odd depths are centred on
    an entropy of 0.3 nats, the default threshold; those at even depths are torn between two classes.
    """
    sure = brentq(lambda logit: entropy(softmax([logit, 0.0, 0.0])) - 0.3, 0.0, 10.0)
    kept = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("exits.")}
    randomise(model, seed=1).load_state_dict(kept, strict=False)
    with torch.inference_mode():
        found = run(model, batch, Policy(exits=tuple(model.config.exit_depths))).exit_logits
    for depth, logits in found.items():
        aim = torch.tensor([sure, 0.0, 0.0] if depth % 2 else [1.0, 1.0, -2.0])
        bias = model.get_parameter(f"exits.{depth}.classifier.bias")
        bias.data += aim - logits.mean(0)


def aim_predictors(model: EfficientBertForSequenceClassification) -> None:
    """Random contribution predictors that tell tokens apart, with thresholds that drop some of them in every layer."""
    generator = torch.Generator().manual_seed(2)
    contribution = model.contributions()
    with torch.no_grad():
        for parameter in contribution.predictors.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        contribution.eta.fill_(0.6)


@torch.no_grad()
def aim_gates(model: EfficientBertForSequenceClassification, batch: Batch) -> None:
    """Gates whose logits spread over the sentences and are centred, so that every class is chosen by some.

    The first one reads the embedding of [CLS], which is the same in every sentence, and always says the same.
    """
    generator = torch.Generator().manual_seed(1)
    states = run(model, batch, execution=Execution.MASKED, record=True).hidden_states
    for place, gate in enumerate(cast(list[WidthGate], list(model.width_gates()))):
        for parameter in gate.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if place == 0:
            continue
        logits = gate(states[place][:, 0])
        scale = 1 / logits.std(0)
        gate.choose.weight.mul_(scale[:, None])
        gate.choose.bias.copy_((gate.choose.bias - logits.mean(0)) * scale)


def demo(count: int) -> list[tuple[str, ...]]:
    """The first sentences of the demo corpus."""
    sentences: list[str] = load_split(TASKS["demo"], "validation", data_dir=None, seed=0)["text"][:count]
    return [(text,) for text in sentences]


def published(task: str, count: int) -> list[tuple[str, ...]]:
    """The first texts or pairs of a task's evaluation split."""
    table = load_split(TASKS[task], TASKS[task].evaluation, data_dir=Path(os.environ[DATA]), seed=0)[:count]
    columns = [table["text"], table["pair"]] if "pair" in table else [table["text"]]
    return list(zip(*columns, strict=True))


@pytest.fixture(scope="session", params=["demo", "published"])
def texts(request: pytest.FixtureRequest) -> list[list[tuple[str, ...]]]:
    """120 sentences and 80 pairs: of the demo corpus, and of SST-2, MRPC and RTE where the data is there."""
    if request.param == "published":
        if DATA not in os.environ:
            pytest.skip(f"{DATA} is not set")
        return [published("sst2", 120), published("mrpc", 40) + published("rte", 40)]
    sentences = demo(280)
    return [sentences[:120], [(*one, *other) for one, other in zip(sentences[120:200], sentences[200:], strict=True)]]
