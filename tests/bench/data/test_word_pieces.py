"""Texts that a tokenizer makes nothing of, or little; names of special tokens in texts; tokenizers beside models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase, pipeline

from bench.backbones.resolving import resolve, tokenizer
from bench.data.examples import require_words
from bench.data.loading import encode, load_split
from bench.data.word_pieces import count, save_tokenizer
from bench.errors import InputError
from bench.planning.describe import remarks
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from bench.rationales.documents import documents_of
from bench.rationales.gold import Gold
from bench.registry import TASKS
from efficient_bert.training.flexible import augmentation
from eraser_eval.formats.schema import Annotation, write_dataset
from tests.support.command_line import call
from tests.support.tiny_files import write_backbone, write_sst2

INVISIBLE = {
    "zero-width spaces": "\u200b\u200b",
    "soft hyphens and a mark": "\u00ad\ufeff",
    "control characters": "\x07 \x1b",
    "combining marks": "\u0301\u0308",
    "overrides": "\u202e\u2066",
    "replacement characters": "\ufffd",
    "private use": "\ue000",
    "joiners among spaces": "\u200d \u3000\u2060",
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that knows a dozen words."""
    return write_backbone(tmp_path_factory.mktemp("backbone") / "bert")


def plan(task: str, data: Path, backbone: Path, *, max_length: int = 32) -> Plan:
    """The plan of a run of the full model."""
    settings = Settings(task, ("full",), preset="smoke", backbone=str(backbone), data_dir=data, max_length=max_length)
    return make_plan(replace(settings, latency_examples=0, store=data / "store"))


def refusal(task: str, data: Path, backbone: Path, *, max_length: int = 32) -> str:
    """The one line that planning ends in."""
    with pytest.raises(InputError) as caught:
        plan(task, data, backbone, max_length=max_length)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
@pytest.mark.parametrize(("name", "line"), [("dev.tsv", 14), ("train.tsv", 62)])
def test_a_labelled_text_has_word_pieces(tmp_path: Path, backbone: Path, text: str, name: str, line: int) -> None:
    """A text that the tokenizer leaves nothing of is refused by its file and line, training rows included."""
    data = write_sst2(tmp_path / "sst2", train=60, dev=12)
    with (data / name).open("a", encoding="utf8") as file:
        file.write(f"{text}\t1\n")
    split = {"dev.tsv": "validation", "train.tsv": "train"}[name]
    rows = load_split(TASKS["sst2"], split, data_dir=data, seed=0)
    encoded = encode(rows, tokenizer(resolve(str(backbone))), max_length=32)
    with pytest.raises(InputError, match=f"{name}, line {line}: the backbone's tokenizer leaves no word pieces") as one:
        require_words(TASKS["sst2"], split, encoded, data_dir=data)
    if text == INVISIBLE["overrides"]:
        assert refusal("sst2", data, backbone) == str(one.value)


def write_mrpc(folder: Path, *odd: str) -> Path:
    """MRPC's files, whose reported rows end in these lines."""
    folder.mkdir()
    for name, rows, more in (("train", 60, ()), ("dev", 8, odd)):
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f"{row % 2}\t1\t2\tfilm {row} was fine {'very ' * row}\tthe plot was {row}" for row in range(rows)]
        (folder / f"{name}.tsv").write_text("\n".join([*lines, *more]) + "\n", encoding="utf8")
    return folder


@pytest.mark.parametrize("odd", ["\u200b\tthe film", "the film\t\u00ad", "\ufeff\t\ufeff"])
def test_both_texts_of_a_pair_have_word_pieces(tmp_path: Path, backbone: Path, odd: str) -> None:
    """A pair of which one side is nothing is refused."""
    found = refusal("mrpc", write_mrpc(tmp_path / "mrpc", f"1\t1\t2\t{odd}"), backbone)
    assert "dev.tsv, line 10: the backbone's tokenizer leaves no word pieces of one of the two texts" in found


def test_pairs_need_room_for_both(tmp_path: Path, backbone: Path) -> None:
    """Of a pair cut to four word pieces nothing would be left of one text; of five each keeps one."""
    data = write_mrpc(tmp_path / "mrpc")
    assert "max_length is 4, but backbone 'bert' takes 5 to 64" in refusal("mrpc", data, backbone, max_length=4)
    rows = plan("mrpc", data, backbone, max_length=5).data.train
    assert {tuple(types) for types in rows["token_type_ids"]} == {(0, 0, 0, 1, 1)}


def test_a_document_has_word_pieces(tmp_path: Path, backbone: Path) -> None:
    """A review in windows, and a document whose rationale is compared, are refused by the annotation's name."""
    reviews = {f"r{n}": f"film {'very ' * n}{('fine', 'dull')[n % 2]}" for n in range(40)} | {"odd": "\u200b \u200b"}
    annotations = [Annotation(name, "", ("POS", "NEG")[n % 2], (), (name,)) for n, name in enumerate(reviews)]
    write_dataset(tmp_path / "movies", reviews, {"train": annotations[:40], "test": annotations[30:]})
    assert "annotation 'odd': the backbone's tokenizer leaves no" in refusal("movies", tmp_path / "movies", backbone)
    with pytest.raises(InputError, match="document of annotation 'odd' has no word pieces"):
        documents_of(Gold("test", tuple(annotations), reviews), tokenizer(resolve(str(backbone))))


def test_a_row_that_has_to_be_answered_is_and_counted(tmp_path: Path, backbone: Path) -> None:
    """A leaderboard gets an answer to each row, and whoever writes it is told how many rows say nothing."""
    data = write_sst2(tmp_path / "sst2", train=60, dev=12)
    texts = ["the film was fine", "", *INVISIBLE.values()]
    lines = ["index\tsentence", *(f"{row}\t{text}" for row, text in enumerate(texts))]
    (data / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    small = ("--preset", "smoke", "--backbone", backbone, "--data-dir", data, "--store", tmp_path, "--max-length", 32)
    answer = call("predict", "--task", "sst2", "--method", "full", *small, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "SST-2.tsv (9 rows have no word pieces: their answers say nothing)\n" in answer.out
    assert len((tmp_path / "out" / "SST-2.tsv").read_text(encoding="utf8").splitlines()) == 1 + len(texts)


def table(*texts: str) -> datasets.Dataset:
    """A loaded split of class 1."""
    rows = {"example_id": [f"d{n}" for n in range(len(texts))], "text": list(texts), "label": [1] * len(texts)}
    return datasets.Dataset.from_dict(rows)


@pytest.mark.parametrize(
    ("texts", "unknown", "lost", "told"),
    [
        (["the film was fine", "the plot was dull"], 0, 0, ""),
        (["the film " * 20, "zebra film"], 1, 0, ""),
        (["the film was", "zebra plot"], 1, 0, "20% of the word pieces of the reported rows are unknown"),
        (["фильм хороший", "映画 良い", "the film"], 6, 2, "75% of the word pieces of the reported rows are unknown"),
        (["the film " * 50, "zebra zebra"], 2, 1, "2% of the word pieces of the reported rows are unknown"),
    ],
)
def test_unknown_words_are_told(backbone: Path, texts: Sequence[str], unknown: int, lost: int, told: str) -> None:
    """By hand: pieces that the vocabulary lacks, texts that hold no other, and from which share on a plan says so."""
    words = tokenizer(resolve(str(backbone)))
    found = count(table(*texts), encode(table(*texts), words, max_length=120), words)
    assert (found.unknown, found.lost, found.rows) == (unknown, lost, len(texts))
    lines = [line for line in remarks({"evaluation": found}) if "unknown" in line]
    assert [told in line for line in lines] == [True] * bool(told)


def special(folder: Path) -> BertTokenizer:
    """A tokenizer with brackets, a token of its backbone's domain and another that was added as special."""
    words = ["[", "]", "sep", "cls", "pad", "mask", "un", "##k", "a", "b"]
    content = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    (folder / "vocab.txt").write_text(content, encoding="utf8")
    made: BertTokenizer = BertTokenizer.from_pretrained(folder)
    made.add_tokens(["@USER"])
    made.add_special_tokens({"extra_special_tokens": ["[URL]"]})
    return made


@pytest.fixture
def words(tmp_path: Path, backbone: Path) -> PreTrainedTokenizerBase:
    """That tokenizer as a backbone's."""
    folder = tmp_path / "special"
    folder.mkdir()
    for path in (backbone / "config.json", backbone / "model.safetensors"):
        (folder / path.name).write_bytes(path.read_bytes())
    special(folder).save_pretrained(folder)
    return tokenizer(resolve(str(folder)))


TYPED = {
    "a [SEP] b": ["a", "[", "sep", "]", "b"],
    "[CLS]": ["[", "cls", "]"],
    "a[PAD]b": ["a", "[", "pad", "]", "b"],
    "[MASK] [UNK]": ["[", "mask", "]", "[", "un", "##k", "]"],
    "a @USER [URL] b": ["a", "@user", "[URL]", "b"],
}


@pytest.mark.parametrize(("text", "pieces"), TYPED.items(), ids=TYPED)
def test_the_name_of_a_special_token_is_text(
    words: PreTrainedTokenizerBase, tmp_path: Path, text: str, pieces: list[str]
) -> None:
    """In one piece, in windows, as a document and by the tokenizer saved beside a model; the domain's tokens stay."""
    gold = Gold("test", (Annotation("d", "", "POS", (), ("d",)),), {"d": text})
    (document,) = documents_of(gold, words)
    read = [encode(table(text), words, max_length=20, windows=own)["input_ids"][0][1:-1] for own in (False, True)]
    save_tokenizer(tmp_path / "saved", tokenizer=words, max_length=20)
    for saved in (
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        augmentation.tokenizer_of(str(tmp_path / "saved")),
    ):
        read.append(saved(text)["input_ids"][1:-1])
    for ids in (document.pieces.tolist(), *read):
        assert words.convert_ids_to_tokens(ids) == pieces


@pytest.mark.parametrize("name", ["[SEP]", "[MASK]", "[UNK]"])
def test_texts_that_are_read_in_another_way_are_other_data(tmp_path: Path, backbone: Path, name: str) -> None:
    """Where the tokens were taken for such names, what was stored is not found again; everything else is."""
    data = write_sst2(tmp_path / "sst2", train=60, dev=12)
    before = plan("sst2", data, backbone)
    assert before.data.token_reading("train", "heldout", "evaluation") == {}
    (data / "dev.tsv").write_text(f"sentence\tlabel\nthe {name} film\t1\na dull plot\t0\n", encoding="utf8")
    after = plan("sst2", data, backbone)
    assert after.arms[0].job.id == before.arms[0].job.id
    assert after.data.token_reading("evaluation") == {"special_tokens": "text"}
    assert "names of special tokens ([SEP] or so) in 1 of the reported rows are read as text" in "".join(
        remarks(after.data.counts)
    )
    with (data / "train.tsv").open("a", encoding="utf8") as file:
        file.write(f"the {name} film was {name}\t1\n")
    assert plan("sst2", data, backbone).data.token_reading("train", "heldout") == {"special_tokens": "text"}


def test_what_is_saved_with_a_model_cuts_where_its_training_did(tmp_path: Path, backbone: Path) -> None:
    """A pipeline with truncation=True answers a long text as `bench predict` does; nothing else cuts or pads."""
    data = write_sst2(tmp_path / "sst2", train=60, dev=11)
    with (data / "dev.tsv").open("a", encoding="utf8") as file:
        file.write(f"{'the film was very ' * 100}dull\t0\n")
    source = tmp_path / "bert"
    source.mkdir()
    for path in backbone.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    content = json.loads((source / "tokenizer.json").read_text(encoding="utf8"))
    content["truncation"] = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    (source / "tokenizer.json").write_text(json.dumps(content), encoding="utf8")
    small = ("--preset", "smoke", "--backbone", source, "--data-dir", data, "--store", tmp_path, "--max-length", 24)
    answer = call("predict", "--task", "sst2", "--method", "full", "--split", "validation", *small,
                  "--out", tmp_path / "out")  # fmt: skip
    assert answer.code == 0, answer.err
    (artifact,) = (tmp_path / "artifacts").glob("finetune-*")
    saved = AutoTokenizer.from_pretrained(artifact)
    assert saved.model_max_length == 24
    stored = json.loads((artifact / "tokenizer.json").read_text(encoding="utf8"))
    assert (stored["truncation"], stored["padding"]) == (None, None)
    assert "max_length" not in json.loads((artifact / "tokenizer_config.json").read_text(encoding="utf8"))
    text = (data / "dev.tsv").read_text(encoding="utf8").splitlines()[-1].partition("\t")[0]
    said = pipeline("text-classification", str(artifact), top_k=None)(text, truncation=True)
    row = (tmp_path / "out" / "sst2-validation.tsv").read_text(encoding="utf8").splitlines()[-1].split("\t")
    written = dict(zip(("negative", "positive"), map(float, row[2].split(",")), strict=True))
    scores = {each["label"]: each["score"] for each in (said[0] if isinstance(said[0], list) else said)}
    assert scores == pytest.approx(written, abs=2e-5)
    assert row[1] == max(scores, key=lambda label: scores[label])
    assert np.argmax(list(written.values())) == ("negative", "positive").index(row[1])
