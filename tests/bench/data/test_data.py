"""Loading, holding out, encoding and batching, in every layout that data comes in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import BertTokenizer

from bench.data.loading import encode, fingerprint, hold_out, load_split
from bench.errors import InputError
from bench.registry import TASKS
from bench.tasks import Task

SST2, MRPC, RTE, IMDB, DEMO = (TASKS[name] for name in ("sst2", "mrpc", "rte", "imdb", "demo"))
ROWS: Mapping[str, Sequence[object]] = {"sentence": ["a fine film", "a dull film", 'no " quote'], "label": [1, 0, 0]}
TSV = 'sentence\tlabel\na fine film\t1\na dull film\t0\nno " quote\t0\n'

needs_data = pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")


def write(path: Path, content: str | bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write a parquet file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def table(texts: list[str], labels: list[int]) -> datasets.Dataset:
    """A loaded training split."""
    rows = {"example_id": [f"train-{row}" for row in range(len(texts))], "text": texts, "label": labels}
    return datasets.Dataset.from_dict(rows)


def message(folder: Path | None, *, task: Task = SST2, split: str = "train", limit: int | None = None) -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load_split(task, split, data_dir=folder, seed=0, limit=limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("below", ["", "SST-2", "glue/SST-2"])
def test_tsv_is_found_in_the_folder_or_below_it(tmp_path: Path, below: str) -> None:
    """GLUE's TSV loads from its own folder or a parent; quotes are ordinary characters."""
    write(tmp_path / below / "train.tsv", TSV)
    loaded = load_split(SST2, "train", data_dir=tmp_path, seed=0)
    assert loaded.to_dict() == {
        "example_id": ["train-0", "train-1", "train-2"],
        "text": ROWS["sentence"],
        "label": ROWS["label"],
    }


def test_tsv_may_have_a_mark_and_other_line_ends(tmp_path: Path) -> None:
    """A byte-order mark and CR LF are no part of the data, and a Unicode line separator is part of a text."""
    write(tmp_path / "dev.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\ta\u2028b\tc\x85\r\n")
    loaded = load_split(MRPC, "validation", data_dir=tmp_path, seed=0)
    assert loaded[0] == {"example_id": "validation-0", "text": "a\u2028b", "pair": "c\x85", "label": 1}


def test_class_names_are_labels(tmp_path: Path) -> None:
    """RTE's TSV names its classes; they get the hub's numbers."""
    text = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n"
    write(tmp_path / "train.tsv", text)
    assert load_split(RTE, "train", data_dir=tmp_path, seed=0)["label"][:] == [1, 0]


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "data/train-0.parquet", "sst2/train.parquet"])
def test_parquet_is_found_as_the_hub_lays_it_out(tmp_path: Path, name: str) -> None:
    """Hub-style parquet loads from the folder, from data/ and from the configuration's folder."""
    write_parquet(tmp_path / name, ROWS)
    assert load_split(SST2, "train", data_dir=tmp_path, seed=0)["text"][:] == ROWS["sentence"]


def test_parquet_shards_are_joined_in_order(tmp_path: Path) -> None:
    """Several files of a split are read in the order of their names."""
    write_parquet(tmp_path / "train-00001-of-00002.parquet", {"sentence": ["second"], "label": [0]})
    write_parquet(tmp_path / "train-00000-of-00002.parquet", {"sentence": ["first"], "label": [1]})
    assert load_split(SST2, "train", data_dir=tmp_path, seed=0)["text"][:] == ["first", "second"]


def test_saved_data_sets_load(tmp_path: Path) -> None:
    """A DatasetDict written by save_to_disk loads, class labels included."""
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
    saved = datasets.Dataset.from_dict(ROWS, features=features)
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "set")
    assert load_split(SST2, "train", data_dir=tmp_path / "set", seed=0)["label"][:] == ROWS["label"]


def test_equal_data_has_equal_fingerprints_in_every_layout(tmp_path: Path) -> None:
    """A fingerprint depends on texts, labels and order alone, not on the layout."""
    write(tmp_path / "tsv" / "train.tsv", TSV)
    write_parquet(tmp_path / "parquet" / "train.parquet", ROWS)
    first, second = (load_split(SST2, "train", data_dir=tmp_path / name, seed=0) for name in ("tsv", "parquet"))
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(first.select([1, 0, 2]))
    assert fingerprint(table(["a", "b"], [0, 1])) != fingerprint(table(["a", "b"], [1, 0]))


def test_a_fingerprint_is_sha256_of_the_columns() -> None:
    """The fingerprint is the start of SHA-256 over the columns as JSON, computed here by another program's digest."""
    # printf '[["a"], [1]]' | sha256sum
    assert fingerprint(table(["a"], [1])) == "7713fcf4d9440d28"


def test_the_hub_is_read_as_plain_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder, only the split's parquet files of the task's repository are asked for and read."""
    write_parquet(tmp_path / "sst2" / "train-00000-of-00001.parquet", ROWS)
    asked: dict[str, object] = {}

    def answer(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    assert load_split(SST2, "train", data_dir=None, seed=0)["label"][:] == ROWS["label"]
    assert asked["repository"] == "nyu-mll/glue"
    assert asked["repo_type"] == "dataset"
    assert asked["allow_patterns"] == ["sst2/train-*.parquet"]


def test_an_unreachable_hub_is_one_line_with_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network and cache the message names the repository, --data-dir and the task that needs neither."""

    def fail(repository: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no\nconnection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for part in ("nyu-mll/glue", "--data-dir DIR", "--task demo"):
        assert part in message(None)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("sentence\tlabel\nfine\t1\nbroken line\n", ["train.tsv, line 3", "1 tab-separated", "2"]),
        ("sentence\tlabel\na\tb\t1\n", ["train.tsv, line 2", "3 tab-separated"]),
        ("sentence\tlabel\nfine\t2\n", ["train.tsv, line 2", "'2'", "0 (negative), 1 (positive)"]),
        ("sentence\tlabel\nfine\t-1\n", ["train.tsv, line 2", "'-1'"]),
        ("sentence\tlabel\n", ["no rows", "train.tsv"]),
        ("index\tsentence\n0\tfine\n", ["no column 'label'", "index, sentence"]),
        (b"sentence\tlabel\n\xff\xfe\t1\n", ["train.tsv", "not UTF-8", "byte 15"]),
    ],
)
def test_malformed_tsv_is_named_with_its_place(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    """A bad TSV names the file, the line and what was found there."""
    write(tmp_path / "train.tsv", content)
    found = message(tmp_path)
    for part in parts:
        assert part in found


def test_a_saved_set_of_another_kind_is_named(tmp_path: Path) -> None:
    """A saved data set without the task's columns, or a damaged one, is refused by name."""
    datasets.Dataset.from_dict({"review": ["a"], "label": [1]}).save_to_disk(tmp_path / "train")
    assert "no column 'sentence'" in message(tmp_path)
    write(tmp_path / "train" / "state.json", "{}")
    assert "cannot be read as a saved data set" in message(tmp_path)


def test_malformed_parquet_is_named_with_its_place(tmp_path: Path) -> None:
    """A damaged file, a missing value and a hub test split without labels each say so."""
    write(tmp_path / "train.parquet", b"PAR1 no more")
    assert "cannot be read as parquet" in message(tmp_path)
    write_parquet(tmp_path / "train.parquet", {"sentence": ["a", None], "label": [1, 0]})
    assert "row 2: the text is None" in message(tmp_path)
    write_parquet(tmp_path / "train.parquet", {"sentence": ["a"], "label": [-1]})
    assert "row 1: the label is -1" in message(tmp_path)
    write_parquet(tmp_path / "train.parquet", {"text": ["a"], "label": [1]})
    assert "no column 'sentence' (it has text, label)" in message(tmp_path)


def test_a_wrong_folder_says_what_was_expected(tmp_path: Path) -> None:
    """A folder that is absent or holds nothing known is answered with the files that would do."""
    assert "does not exist" in message(tmp_path / "absent")
    found = message(tmp_path)
    for part in (str(tmp_path), "train.tsv", "-*.parquet", "glue/SST-2"):
        assert part in found


def test_limits_and_splits_that_make_no_sense_are_refused() -> None:
    """A limit below one and an unknown split of a generated task are answered with the rule."""
    assert "limit of 0" in message(None, task=DEMO, limit=0)
    assert "train, validation, test" in message(None, task=DEMO, split="dev")


def test_a_limit_draws_the_same_rows_again_in_order(tmp_path: Path) -> None:
    """A limit is a seeded draw over the whole split (IMDB's files are sorted by label), kept in the split's order."""
    write_parquet(tmp_path / "train.parquet", {"text": [f"t{row}" for row in range(100)], "label": [0] * 50 + [1] * 50})
    drawn = load_split(IMDB, "train", data_dir=tmp_path, seed=1, limit=20)
    again = load_split(IMDB, "train", data_dir=tmp_path, seed=1, limit=20)
    other = load_split(IMDB, "train", data_dir=tmp_path, seed=2, limit=20)
    rows = [int(text[1:]) for text in drawn["text"]]
    assert rows == sorted(set(rows))
    assert len(rows) == 20
    assert set(drawn["label"]) == {0, 1}
    assert fingerprint(drawn) == fingerprint(again) != fingerprint(other)
    assert len(load_split(IMDB, "train", data_dir=tmp_path, seed=1, limit=1000)) == 100


def test_a_held_out_slice_is_disjoint_and_stratified() -> None:
    """The slice has the asked fraction of every class, shares no row with training, and depends on the seed alone."""
    train = table([f"text {row}" for row in range(200)], [0] * 150 + [1] * 50)
    rest, heldout = hold_out(train, seed=0)
    assert len(heldout) == 20
    assert sum(heldout["label"]) == 5
    assert sorted([*rest["example_id"], *heldout["example_id"]]) == sorted(train["example_id"])
    assert hold_out(train, seed=0)[1].to_dict() == heldout.to_dict() != hold_out(train, seed=1)[1].to_dict()
    assert len(hold_out(train, seed=0, most=8)[1]) == 8


def test_copies_of_held_out_rows_are_not_trained_on() -> None:
    """The same words in another row leave training, whatever the spaces; of a pair both texts have to be the same."""
    texts = [f"text {row}" for row in range(40)]
    labels = [0, 1] * 20
    rest, heldout = hold_out(table([*texts, *(f" {text}  " for text in texts)], labels * 2), seed=0)
    words = {text.strip() for text in heldout["text"]}
    assert len(heldout) == 8
    assert not words & {text.strip() for text in rest["text"]}
    assert len(rest) == 80 - 2 * len(words)
    pairs = table([*texts, *texts], labels * 2)
    assert len(hold_out(pairs.add_column("pair", [*texts, *(["other"] * 40)]), seed=0)[0]) == 72
    assert len(hold_out(pairs.add_column("pair", ["a b"] * 40 + [" a  b "] * 40), seed=0)[0]) == len(rest)
    with pytest.raises(InputError, match="copies, are too few"):
        hold_out(table(["a", "b"] * 20, [0, 1] * 20), seed=0)


def test_holding_out_of_too_few_rows_is_refused() -> None:
    """A class that cannot be on both sides of the split is an error that names the limit."""
    with pytest.raises(InputError, match=r"4 training rows are too few.*raise the limit"):
        hold_out(table(["a", "b", "c", "d"], [0, 0, 0, 1]), seed=0)


def test_held_out_sentences_share_no_phrase_with_training() -> None:
    """With phrases, whole sentences are held out and their phrases of three words or more leave training."""
    sentences = [f"film number {row} was a joy to watch" for row in range(10)]
    sentences += [f"film number {row} was no fun at all" for row in range(10, 20)]
    phrases = [" ".join(text.split()[2:5]) for text in sentences]
    short = [" ".join(text.split()[2:4]) for text in sentences]
    train = table([*sentences, *phrases, *short], ([1] * 10 + [0] * 10) * 3)
    rest, heldout = hold_out(train, seed=0, fraction=0.2, phrases=True)
    assert len(heldout) == 4
    assert sum(heldout["label"]) == 2
    assert set(heldout["text"]) <= set(sentences)
    for text in rest["text"]:
        contained = any(f" {text} " in f" {sentence} " for sentence in heldout["text"])
        assert not contained or len(text.split()) < 3
    # 60 rows less 4 sentences less their 4 phrases; the two-word phrases stay.
    assert len(rest) == 52


def test_a_long_text_has_few_phrases() -> None:
    """Of 5,000 words only runs as long as another row are looked at, and found."""
    words = [str(number) for number in range(5000)]
    long = [" ".join([*words[row:], *words[:row]]) for row in range(4)]
    phrases = ["17 18 19", "4000 4001 4002 4003"]
    train = table([*long, *phrases, "a b c", "d e f"], [0, 1] * 4)
    rest, heldout = hold_out(train, seed=0, fraction=0.5, phrases=True)
    assert set(heldout["text"]) & set(long)
    assert {*rest["text"], *heldout["text"]} == {*long, "a b c", "d e f"}


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizer:
    """A tokenizer of nine word pieces."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    write(tmp_path / "vocab.txt", "\n".join(words))
    loaded: BertTokenizer = BertTokenizer.from_pretrained(tmp_path)
    return loaded


def test_encoding_matches_the_tokenizer_by_hand(tokenizer: BertTokenizer) -> None:
    """Single texts become [CLS] text [SEP]; pairs get token types; the longer text of a pair is cut first."""
    single = encode(table(["a b", "c"], [1, 0]), tokenizer, max_length=8)
    assert single[0] == {
        "example_id": "train-0",
        "input_ids": [2, 5, 6, 3],
        "token_type_ids": [0, 0, 0, 0],
        "label": 1,
        "cut": False,
        "length": 4,
    }
    pairs = table(["a a a a a", "a"], [0, 1]).add_column("pair", ["b b", "c c c c c c"])
    encoded = encode(pairs, tokenizer, max_length=7)
    assert encoded["input_ids"][0] == [2, 5, 5, 3, 6, 6, 3]
    assert encoded["token_type_ids"][0] == [0, 0, 0, 0, 1, 1, 1]
    assert encoded["input_ids"][1] == [2, 5, 3, 7, 7, 7, 3]
    assert encoded["length"][:] == [7, 7]
    assert encoded["cut"][:] == [True, True]
    assert encode(table(["a b", "a b c"], [1, 0]), tokenizer, max_length=4)["cut"][:] == [False, True]


def test_encoding_keeps_order_over_many_batches(tokenizer: BertTokenizer) -> None:
    """More rows than one batch come out in order, and nothing is written to a cache."""
    encoded = encode(table(["a", "b c"] * 1100, [0, 1] * 1100), tokenizer, max_length=8)
    assert encoded["length"][:] == [3, 4] * 1100
    assert encoded["example_id"][2199] == "train-2199"
    assert encoded.cache_files == []


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "rows"),
    [
        ("sst2", "train", 67349),
        ("sst2", "validation", 872),
        ("mrpc", "train", 3668),
        ("mrpc", "validation", 408),
        ("rte", "train", 2490),
        ("rte", "validation", 277),
        ("imdb", "train", 25000),
        ("imdb", "test", 25000),
    ],
)
def test_published_data_has_its_published_size(name: str, split: str, rows: int) -> None:
    """Each published split has the number of rows that its authors state, and both classes."""
    loaded = load_split(TASKS[name], split, data_dir=Path(os.environ["EFFICIENT_BERT_DATA"]), seed=0)
    assert len(loaded) == rows
    assert set(loaded["label"]) == {0, 1}


@needs_data
def test_sst2_is_held_out_by_sentence() -> None:
    """SST-2's held-out rows are whole sentences, and training keeps most rows but none of their longer phrases."""
    train = load_split(SST2, "train", data_dir=Path(os.environ["EFFICIENT_BERT_DATA"]), seed=0)
    rest, heldout = hold_out(train, seed=0, phrases=SST2.phrases)
    held = "\n".join(f" {' '.join(text.split())} " for text in heldout["text"])
    leaked = [text for text in rest["text"] if len(text.split()) > 2 and f" {' '.join(text.split())} " in held]
    assert leaked == []
    assert 300 < len(heldout) < 400  # one in twenty of the 6,885 sentences
    assert len(rest) > 0.95 * len(train)
