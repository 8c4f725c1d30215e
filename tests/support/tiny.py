"""Small random BERTs, batches and a tokenizer folder: everything an offline test needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification
from efficient_bert.engine.decisions import Decision, View

VOCABULARY = 97
SHAPES: dict[str, dict[str, int]] = {
    "twelve_heads": {"num_hidden_layers": 4, "hidden_size": 48, "num_attention_heads": 12, "intermediate_size": 192},
    "four_heads": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64},
    # an inner size that the heads do not divide
    "odd_inner": {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 50},
}


def tiny_config(shape: str = "twelve_heads", *, classes: int = 3, **changes: Any) -> EfficientBertConfig:
    """The configuration of a shape, with exits after inner layers, a predictor and a gate before each."""
    fields: dict[str, Any] = {
        **SHAPES[shape],
        "exit_depths": range(1, SHAPES[shape]["num_hidden_layers"]),
        "contribution_size": 10,
        "num_gates": changes.get("num_hidden_layers", SHAPES[shape]["num_hidden_layers"]),
        "widths": [0.25, 0.5, 0.75, 1.0],
        "gate_profile": [[0.4, 0.3, 0.2, 0.1]] * SHAPES[shape]["num_hidden_layers"],
        "exit_profile": [[bound, *[bound / 4] * (SHAPES[shape]["num_hidden_layers"] - 1)] for bound in (0.0, 1.0)],
        "staying_profile": [[[0.4, 0.3, 0.2, 0.1]] * SHAPES[shape]["num_hidden_layers"]] * 2,
        "length_profile": [1 - 0.2 * layer for layer in range(SHAPES[shape]["num_hidden_layers"])],
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "num_labels": classes,
        "initializer_range": 0.2,
    }
    return EfficientBertConfig(**{**fields, **changes})


def tiny_model(
    shape: str = "twelve_heads", *, seed: int = 0, classes: int = 3, **changes: Any
) -> EfficientBertForSequenceClassification:
    """A random model in evaluation mode whose logits differ between examples; biases are random too."""
    torch.manual_seed(seed)
    model = EfficientBertForSequenceClassification(tiny_config(shape, classes=classes, **changes))
    randomise(model, seed=seed).eval()
    return model


def randomise(model: EfficientBertForSequenceClassification, *, seed: int) -> EfficientBertForSequenceClassification:
    """Random biases and layer norms (zeros and ones would hide mistakes), and spread logits and contributions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "classifier" in name or "predictors" in name or "choose" in name:
                parameter.copy_(0.4 * noise)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * noise)
    return model


def tiny_batch(lengths: Sequence[int], *, seed: int = 0, left: bool = False) -> Batch:
    """Random ids in rows of these lengths, padded on the right (or left), with random segments."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(lengths)
    column, length = torch.arange(max(lengths)), torch.tensor(lengths)[:, None]
    mask = column >= max(lengths) - length if left else column < length
    ids = torch.randint(1, VOCABULARY, shape, generator=generator) * mask
    return Batch(ids, mask, torch.randint(0, 2, shape, generator=generator) * mask)


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, in the order given, without the padding that none of them needs."""
    chosen = list(rows)
    longest = int(batch.mask[chosen].any(0).nonzero().max()) + 1
    ids, mask, types = (part[chosen, :longest] for part in (batch.input_ids, batch.mask, batch.token_type_ids))
    return Batch(ids, mask, types)


def everything(view: View) -> Decision:
    """Drops tokens, narrows examples differently and lets some leave, each by its own states and length alone."""
    lengths = view.mask.sum(1)
    feature = view.hidden[..., 5] * view.mask
    return Decision(
        keep=feature > feature.sum(1, keepdim=True) / lengths[:, None] - 0.5,
        leave=(lengths + view.depth) % 3 == 0 if len(view.logits) else None,
        width=torch.tensor([0.375, 0.55, 1.0])[lengths % 3],
        macs=lengths * view.hidden.shape[-1],
    )


def tokenizer_folder(folder: Path, *, words: Sequence[str]) -> Path:
    """A folder with a BERT tokenizer that knows these words."""
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf8")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
