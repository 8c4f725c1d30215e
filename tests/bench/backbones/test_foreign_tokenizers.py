"""Tokenizers of foreign models: one that does not belong to the model is refused in the plan, by what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.support.backbone_folders import (
    POINTER,
    Damage,
    change_json,
    copy_sound,
    fields,
    keep_vocabulary_alone,
    named,
    planned,
    refusal,
    replaced,
    tokenizer,
    vocabulary,
)

TOKENIZERS: list[tuple[Damage, str]] = [
    (vocabulary(lambda pieces: [*pieces, "more"]), "'more' has number 18, but the table of embeddings has 18 rows"),
    (vocabulary(lambda pieces: pieces[:12]), "has 12 word pieces, but the table of embeddings has 18 rows"),
    (vocabulary(lambda pieces: [*pieces[:-1], "the"]), "line 18: 'the' is there 2 times"),
    (vocabulary(lambda pieces: []), r"lacks \[CLS\], \[SEP\], \[PAD\], \[UNK\]|vocab.txt is empty"),
    (vocabulary(lambda pieces: [p for p in pieces if p != "[CLS]"]), r"lacks \[CLS\]"),
    (vocabulary(lambda pieces: ["[unused0]" if p == "[SEP]" else p for p in pieces]), r"lacks \[SEP\]"),
    (vocabulary(lambda pieces: ["[unused0]" if p == "[UNK]" else p for p in pieces]), r"lacks \[UNK\]"),
    (vocabulary(lambda pieces: ["[unused0]" if p == "[PAD]" else p for p in pieces]), r"lacks \[PAD\]"),
    (vocabulary(lambda pieces: [*pieces[:5], *(p.title() for p in pieces[5:])]), "cased.* lower case"),
    (fields(pad_token_id=7), r"\[PAD\] has number 0, but pad_token_id is 7"),
    (tokenizer(post_processor=None), r"does not put \[CLS\] before and \[SEP\] behind"),
    (tokenizer(model={"type": "BPE", "vocab": {"[UNK]": 0}, "merges": []}), "BPE"),
    (tokenizer(version="9.0"), "tokenizer of backbone 'bert' cannot be read"),
    (tokenizer(model={"type": "Other"}), "tokenizer of backbone 'bert' cannot be read"),
    (replaced("tokenizer.json", b"{"), "tokenizer.json is no JSON text"),
    (replaced("tokenizer.json", POINTER), "git lfs pull"),
    (replaced("tokenizer_config.json", b"[]"), "tokenizer_config.json holds a JSON list"),
    (replaced("tokenizer_config.json", b'{"tokenizer_class": "T5Tokenizer"}'), "tokenizer of backbone 'bert'"),
    (replaced("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["a.B", null]}}'), "never run"),
    (lambda folder: (folder / "vocab.txt").write_text("[PAD]\nfilm", encoding="utf8"), "line 2: 'film' has number 1"),
    (lambda folder: (keep_vocabulary_alone(folder)).write_bytes(b"[PAD]\n\xff"), "vocab.txt is no UTF-8"),
]


@named(TOKENIZERS)
def test_a_tokenizer_that_is_not_the_models_is_refused(damage: Damage, said: str, tmp_path: Path) -> None:
    """Numbers beyond the table, cut or mixed vocabularies, absent special tokens and other kinds are named."""
    folder = copy_sound(tmp_path / "bert")
    damage(folder)
    assert re.search(said, refusal(folder))


def test_pairs_need_a_tokenizer_that_numbers_segments(tmp_path: Path) -> None:
    """A tokenizer that gives both texts of a pair one segment is refused where pairs are read."""
    folder = copy_sound(tmp_path / "bert")

    def flat(content: dict[str, Any]) -> None:
        for piece in content["post_processor"]["pair"]:
            next(iter(piece.values()))["type_id"] = 0

    tokenizer()(folder)
    change_json(folder / "tokenizer.json", flat)
    planned(folder)
    assert "segments" in refusal(folder, "mrpc")
