"""Augmentation: which words may go, what takes their place, how often, and that nothing depends on the company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from bench.planning.plan import make_plan
from bench.planning.settings import Settings
from bench.progress import Bars
from bench.runs.train import train_job
from efficient_bert import InputError
from efficient_bert.training import Context, Trained
from efficient_bert.training.flexible import augmentation
from efficient_bert.training.flexible import stage as flexible
from efficient_bert.training.flexible.augmentation import FILE, augment, variants, with_augmented
from efficient_bert.training.flexible.stage import DEPTH, WIDTH
from efficient_bert.training.flexible.thesaurus import Thesaurus, read_vectors, words_of
from tests.efficient_bert.training.test_flexible_training import given
from tests.support.tiny import VOCABULARY, tokenizer_folder
from tests.support.tiny_files import write_backbone, write_sst2

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WHOLE = [f"zz{one}{other}" for one in LETTERS[:4] for other in LETTERS][: VOCABULARY - 8]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*WHOLE, "the", "##ish", "##ly"]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random masked language model of the tiny models' vocabulary."""
    folder = tokenizer_folder(tmp_path_factory.mktemp("mlm"), words=WORDS)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def thesaurus(folder: Path, vectors: Path | None = None, count: int = 3) -> Thesaurus:
    """The candidates of that model."""
    return Thesaurus(
        AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder).eval(), vectors, count
    )


def test_words_that_may_go_are_letters_and_no_stop_words() -> None:
    """Pieces are joined; figures, marks, special pieces and stop words stay."""
    pieces = ["[CLS]", "the", "good", "##ish", "film", "2", "of", ",", "cafe\u0301", "[SEP]"]
    assert words_of(pieces) == [(2, 4, "goodish"), (4, 5, "film")]


@torch.inference_mode()
def test_candidates_are_what_the_model_expects(language_model: Path) -> None:
    """For each word of one piece: the likeliest whole words under a mask before the unmasked text, asked one by one."""
    found = thesaurus(language_model)
    ids = found.tokenizer.encode("zzaa the zzab zzacish zzad")
    (choices,) = found.choices([ids])
    assert [(start, end) for start, end, _ in choices] == [(1, 2), (3, 4), (6, 7)], "no vectors: zzacish stays"
    for start, _, candidates in choices:
        masked = [*ids[:start], found.tokenizer.mask_token_id, *ids[start + 1 :], *ids[1:]]
        types = [0] * len(ids) + [1] * (len(ids) - 1)
        logits = found.model(input_ids=torch.tensor([masked]), token_type_ids=torch.tensor([types])).logits[0, start]
        whole = [piece for piece in logits.argsort(descending=True).tolist() if 5 <= piece < VOCABULARY - 2]
        assert [piece for (piece,) in candidates] == whole[:3]


def test_rows_of_one_length_share_passes(language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked together, rows get the candidates that each gets alone, in fewer passes; a long text splits no row."""
    found = thesaurus(language_model)
    texts = ["zzaa zzab", "zzac", "the", "zzad zzae", "zzaf zzag zzah zzai", "zzaj zzakish"]
    rows = [found.tokenizer.encode(text) for text in texts]
    alone = [found.choices([row])[0] for row in rows]
    passes: list[torch.Size] = []
    forward = found.model.forward

    def watched(input_ids: torch.Tensor, **more: Any) -> Any:
        passes.append(input_ids.shape)
        return forward(input_ids, **more)

    monkeypatch.setattr(found.model, "forward", watched)
    assert found.choices(rows) == alone
    assert passes == [(4, 7), (1, 5), (4, 11), (1, 9)]
    assert [len(own) for own in alone] == [2, 1, 0, 2, 4, 1]
    monkeypatch.setattr("efficient_bert.training.flexible.thesaurus.TOKENS", 20)
    passes.clear()
    assert found.choices(rows[:1]) == alone[:1]
    assert passes == [(2, 7)]
    monkeypatch.setattr("efficient_bert.training.flexible.thesaurus.TOKENS", 1)
    assert found.choices(rows) == alone


def test_words_of_several_pieces_have_neighbours(language_model: Path, tmp_path: Path) -> None:
    """The nearest words by cosine, whatever their vectors' length, the word itself left out, as word pieces."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("zzacish 1 0\nzzaa 5 1\nzzabish 0.1 0.01\nzzad -1 0\nzzae 0 1\n", encoding="utf8")
    found = thesaurus(language_model, vectors, count=2)
    pieces = [found.tokenizer.convert_ids_to_tokens(ids) for ids in found.nearest_words("zzacish")]
    assert pieces == [["zzab", "##ish"], ["zzaa"]]
    assert found.nearest_words("zzaf") == []


def test_published_vectors_are_read(tmp_path: Path) -> None:
    """A line of counts is passed over, tabs and blanks at an end too; a word may have blanks of any kind."""
    vectors = tmp_path / "vectors.vec"
    vectors.write_text("5 2\nfilm 1 0 \n. . . 0.5 -1e-3\nat 2\t0 1\n\u00a0 3 4\r\n7 5 6", encoding="utf8")
    words, numbers = read_vectors(vectors)
    assert words == ["film", ". . .", "at 2", "\u00a0", "7"]
    torch.testing.assert_close(numbers, torch.tensor([[1, 0], [0.5, -0.001], [0, 1], [3, 4], [5, 6]]))


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (b"film 1 0\nplot 1\n", "line 2 is no word in UTF-8 with 2 finite numbers"),
        (b"film 1 0\n2 1\n", "line 2"),
        (b"film 1 0\n\ncast 1 0\n", "line 2"),
        (b"film 1 0\nplot 1 x\n", "line 2"),
        (b"film 1 0\nplot 1 nan\n", "line 2"),
        (b"film 1 0\n\xff 1 0\n", "line 2"),
        (b"2 2\nfilm\n", "line 2 is no word in UTF-8 with its numbers"),
        (b"film 1 0\n3 2\n", "line 2"),
        (b"\x80\x04 binary", "line 1"),
    ],
)
def test_malformed_vectors_are_refused(lines: bytes, place: str, tmp_path: Path) -> None:
    """One line with the file and the number of the first line that has no word, or not as many numbers."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_bytes(lines)
    with pytest.raises(InputError, match=rf"vectors\.txt, {place}") as caught:
        read_vectors(vectors)
    assert "\n" not in str(caught.value)


def test_copies_replace_as_often_as_the_chance_says() -> None:
    """Every word of every copy at 1, none at 0, about half between; segments follow, and long copies are left out."""
    row: dict[str, Any] = {"example_id": "e", "input_ids": [2, 7, 8, 3, 9, 3], "token_type_ids": [0, 0, 0, 0, 1, 1]}
    choices = [(1, 2, [[50]]), (4, 5, [[60, 61]])]
    options: dict[str, Any] = {"copies": 200, "longest": 9, "seed": 1}
    always = list(variants(row, choices, chance=1.0, **options))
    assert {tuple(copy["input_ids"]) for copy in always} == {(2, 50, 8, 3, 60, 61, 3)}
    assert always[0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert len({copy["example_id"] for copy in always}) == 200
    assert {tuple(copy["input_ids"]) for copy in variants(row, choices, chance=0.0, **options)} == {(2, 7, 8, 3, 9, 3)}
    half = [50 in copy["input_ids"] for copy in variants(row, choices, chance=0.5, **options)]
    assert abs(sum(half) - 100) < 4 * 50**0.5
    assert list(variants(row, choices, chance=1.0, **{**options, "longest": 6})) == []
    assert list(variants(row, choices, chance=0.5, **options)) == list(variants(row, choices, chance=0.5, **options))


def asked(folder: Path, language_model: Path, **options: Any) -> Any:
    """A run of the stage that trains widths, with five copies of each row."""
    wanted = {
        "augment_copies": 5,
        "augment_model": str(language_model),
        "augment_candidates": 2,
        "epochs": 1,
        **options,
    }
    vocabulary = {piece: place for place, piece in enumerate([*SPECIAL, *WORDS])}
    return given(folder, WIDTH, options=wanted, vocabulary=vocabulary)


def test_rows_are_distinct_and_the_teachers(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row twice nor one of the training rows, labels the teacher's; a killed stage takes its shards over."""
    monkeypatch.setattr(augmentation, "SHARD", 7)
    run_ = asked(tmp_path, language_model)
    path = augment(run_)
    rows = with_augmented(run_.train, path)
    assert rows[: len(run_.train)] == run_.train
    assert len(rows) > 2 * len(run_.train)
    more = rows[len(run_.train) :]
    assert len({tuple(row["input_ids"]) for row in more}) == len(more)
    assert not {tuple(row["input_ids"]) for row in more} & {tuple(row["input_ids"]) for row in run_.train}
    assert more == [rows[place] for place in range(len(run_.train), len(rows))]
    assert rows[-1] == list(rows)[-1]
    with pytest.raises(IndexError):
        rows[len(rows)]
    assert [row["label"] for row in more[:20]] == [
        int(each) for each in augmentation.teacher_labels(run_.model, more[:20])
    ]
    first = pq.read_table(path)
    shards = sorted(tmp_path.glob("augmented-*.parquet"))
    times = [shard.stat().st_mtime_ns for shard in shards]
    (tmp_path / FILE).unlink()
    shards[-1].unlink()
    assert pq.read_table(augment(asked(tmp_path, language_model))).equals(first)
    assert [shard.stat().st_mtime_ns for shard in shards[:-1]] == times[:-1]


def test_both_stages_train_on_the_copies(language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths train on rows and copies and keep them for depths; without copies nothing is asked or kept."""
    seen: list[int] = []

    def count(context: Any, *arguments: Any, **more: Any) -> Any:
        seen.append(len(context.train))
        return training(context, *arguments, **more)

    training = flexible.train_jointly
    monkeypatch.setattr(flexible, "train_jointly", count)
    run_ = asked(tmp_path / "width", language_model)
    trained = WIDTH.train(run_)
    more = pq.read_table(trained.beside[FILE]).num_rows
    DEPTH.train(given(tmp_path / "depth", DEPTH, before=tmp_path / "width", options={"epochs": 1}))
    assert WIDTH.train(given(tmp_path / "none", WIDTH, options={"epochs": 1})).beside == {}
    rows = len(run_.train)
    assert seen == [rows + more, rows + more, rows]


def masked_model(pieces: int, *, positions: int = 512) -> BertForMaskedLM:
    """The smallest one of so many word pieces that reads so many of them."""
    sizes: dict[str, Any] = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    return BertForMaskedLM(BertConfig(vocab_size=pieces, max_position_embeddings=positions, **sizes))


def test_what_cannot_be_used_is_refused(language_model: Path, tmp_path: Path) -> None:
    """No model, one that is not there, one of another vocabulary, no such file: one line each, in time."""
    small = tokenizer_folder(tmp_path / "small", words=WORDS[:5])
    moved = tokenizer_folder(tmp_path / "moved", words=[*WORDS[2:], *WORDS[:2]])  # as many, under other ids
    for options, message in (
        ({"augment_model": ""}, "needs a masked language model"),
        ({"augment_model": str(tmp_path / "nothing")}, "cannot be read as a masked language model"),
        ({"augment_model": str(small)}, "shares 10 of its 10 word pieces and their ids with the 97 of the backbone"),
        ({"augment_model": str(moved)}, "shares 5 of its 97 word pieces"),
        ({"augment_vectors": str(tmp_path / "nothing.txt")}, "which is no file"),
    ):
        run_ = asked(tmp_path / "run", language_model, **options)
        with pytest.raises(InputError, match=message):
            WIDTH.check(run_.model.config, run_.options, run_.vocabulary)
        with pytest.raises(InputError, match=message) as caught:
            augment(run_)
        assert "\n" not in str(caught.value)


def test_an_encoder_fills_in_no_words(language_model: Path, tmp_path: Path) -> None:
    """A checkpoint without the head that does it would get a random one."""
    encoder = tokenizer_folder(tmp_path / "encoder", words=WORDS)
    masked_model(VOCABULARY).bert.save_pretrained(encoder)
    with pytest.raises(InputError, match=r"is no masked language model: its weights lack cls\."):
        augment(asked(tmp_path / "run", language_model, augment_model=str(encoder)))


def test_a_language_model_of_too_few_positions_is_refused(language_model: Path, tmp_path: Path) -> None:
    """A training row that is longer than what the model reads: one line before anything is asked."""
    short = tokenizer_folder(tmp_path / "short", words=WORDS)
    masked_model(VOCABULARY, positions=6).save_pretrained(short)
    with pytest.raises(
        InputError, match=r"reads 6 word pieces, but a training row has \d+; give another one"
    ) as caught:
        augment(asked(tmp_path / "run", language_model, augment_model=str(short)))
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused(language_model: Path, tmp_path: Path) -> None:
    """A masked language model whose file of weights was cut off."""
    damaged = tokenizer_folder(tmp_path / "damaged", words=WORDS)
    masked_model(VOCABULARY).save_pretrained(damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as a masked language model"):
        augment(asked(tmp_path / "run", language_model, augment_model=str(damaged)))


def test_a_stage_knows_the_vocabulary(tmp_path: Path) -> None:
    """A stage that is trained by the program is told the word pieces of the backbone's tokenizer."""
    backbone, data = write_backbone(tmp_path / "backbone"), write_sst2(tmp_path / "data", train=40, dev=8)
    asked = Settings("sst2", methods=("full",), backbone=str(backbone), data_dir=data, max_length=32, store=tmp_path)
    plan, seen = make_plan(asked), []

    def train(context: Context) -> Trained:
        seen.append(context.vocabulary)
        return Trained(context.model)

    (job,) = plan.jobs
    train_job(plan, replace(job, stage=replace(job.stage, train=train)), Bars())
    pieces = (backbone / "vocab.txt").read_text(encoding="utf8").split()
    assert seen == [{piece: place for place, piece in enumerate(pieces)}]
