"""The one loop on real sentences and texts: every method gathers as it masks, at any batch size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data.loading import encode, load_split
from bench.registry import METHODS, TASKS, all_knobs
from efficient_bert import Batch, EfficientBertForSequenceClassification, InputError, run
from efficient_bert.engine.decisions import Policy
from efficient_bert.methods import Method
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.training.batches import collate
from tests.conftest import DATA, MiniLM
from tests.efficient_bert.engine.test_engine import TOLERANCE, gathered_and_masked
from tests.support.tiny import everything


def settings_of(method: Method) -> Iterator[dict[str, Any]]:
    """The default knobs, and each of a knob's points with the others at their defaults."""
    defaults = {knob.name: knob.default for knob in all_knobs(method)}
    yield defaults
    for knob in method.knobs:
        yield from ({**defaults, knob.name: point} for point in knob.points)


def policies(model: EfficientBertForSequenceClassification, method: Method) -> Iterator[Policy]:
    """The method's policies at every setting that fits the model."""
    for knobs in settings_of(method):
        try:
            method.check(model.config, knobs)
        except InputError:
            continue
        yield method.policy(model, method.calibrate(model, None, knobs))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gathers_as_it_masks(minilm: MiniLM, texts: list[list[tuple[str, ...]]], name: str) -> None:
    """On real sentences every method answers and removes the same, gathered or masked, at batch 1, 8 and 32."""
    rows = texts[0][:32]
    for policy in policies(minilm.exits, METHODS[name]):
        whole, _ = gathered_and_masked(minilm.exits, minilm.batches(rows, size=32)[0], policy)
        for size, count in ((1, 6), (8, 24)):
            parts = [
                gathered_and_masked(minilm.exits, part, policy)[0] for part in minilm.batches(rows[:count], size=size)
            ]
            logits = torch.cat([part.logits for part in parts])
            torch.testing.assert_close(logits, whole.logits[:count], atol=TOLERANCE, rtol=0)
            depths = torch.cat([part.trace.exit_depth for part in parts])
            assert torch.equal(depths, whole.trace.exit_depth[:count])


@pytest.mark.parametrize(("task", "split"), [("sst2", "validation"), ("movies", "test")])
def test_tokens_drop_alike_at_any_batch_size(minilm: MiniLM, task: str, split: str) -> None:
    """Real ragged examples keep the same tokens in a batch of 32 as alone, with logits within 1e-4."""
    folder = os.environ.get(DATA)
    if not folder:
        pytest.skip(f"needs real data: set {DATA}")
    table = load_split(TASKS[task], split, data_dir=Path(folder), seed=0, limit=32)
    rows = encode(table, minilm.tokenizer, max_length=TASKS[task].max_length, windows=TASKS[task].windows).to_list()[
        :32
    ]
    policy = contribution_policy(minilm.exits.contributions())
    parts = [rows, *([row] for row in rows)]
    batches = [Batch.of(collate(part, pad_token_id=0)) for part in parts]
    whole, *alone = [gathered_and_masked(minilm.exits, batch, policy)[0] for batch in batches]
    assert (whole.trace.tokens[:, -1] < whole.trace.length).sum() > 16
    assert len(whole.trace.length.unique()) > 8
    torch.testing.assert_close(whole.logits, torch.cat([one.logits for one in alone]), atol=1e-4, rtol=0)
    for row, one in enumerate(alone):
        kept = whole.trace.kept[row]
        assert torch.equal(kept[:, : one.trace.kept.shape[2]], one.trace.kept[0])
        assert not kept[:, one.trace.kept.shape[2] :].any()


@pytest.mark.parametrize("name", ["entropy_exit", "patience_exit"])
def test_exits_vary_on_real_sentences(minilm: MiniLM, texts: list[list[tuple[str, ...]]], name: str) -> None:
    """The comparison above is not vacuous: at some knob examples leave at three or more depths."""
    batch = minilm.batches(texts[0][:32], size=32)[0]
    with torch.inference_mode():
        found = [run(minilm.exits, batch, policy).trace.exit_depth for policy in policies(minilm.exits, METHODS[name])]
    assert max(len(depths.unique()) for depths in found) >= 3


def test_everything_at_once_on_real_sentences(minilm: MiniLM, texts: list[list[tuple[str, ...]]]) -> None:
    """Dropping tokens, widths that differ within a batch and early exits, all at once, gather as they mask."""
    policy = Policy(everything, exits=(1, 3, 5))
    for kind in texts:
        batch = minilm.batches(kind[:32], size=32)[0]
        gathered, _ = gathered_and_masked(minilm.exits, batch, policy)
        trace = gathered.trace
        assert len(trace.exit_depth.unique()) >= 3
        assert any(len(column[column > 0].unique()) >= 2 for column in trace.heads.T)
        assert (trace.tokens[:, 2] < trace.length).any()
