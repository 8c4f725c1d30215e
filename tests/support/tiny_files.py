"""Small inputs as files: a random BERT of two layers with its tokenizer, and a data set in SST-2's layout."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

WORDS = ("the", "film", "was", "plot", "cast", "and", "very", "fine", "good", "great", "dull", "bad", "poor")
GOOD, BAD = WORDS[7:10], WORDS[10:13]


def write_backbone(folder: Path, *, dropout: float = 0.1) -> Path:
    """A BERT encoder (2 layers, 16 wide) that knows `WORDS`, as `--backbone` takes it."""
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf8")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_sst2(folder: Path, *, train: int, dev: int) -> Path:
    """`train.tsv` and `dev.tsv` of different short sentences, as `--data-dir` takes them."""
    folder.mkdir(parents=True)
    draw = random.Random(0)  # noqa: S311 - a draw, no secret
    for name, rows in (("train", train), ("dev", dev)):
        lines = ["sentence\tlabel"]
        for row in range(rows):
            opinion = draw.choice(GOOD if row % 2 else BAD)
            filler = " ".join(draw.choices(WORDS[:7], k=draw.randint(3, 12)))
            lines.append(f"{name}{row} {filler} {opinion}\t{row % 2}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder
