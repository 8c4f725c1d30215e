"""What the command line refuses: one line that holds the value, the rule and the remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.registry import METHODS, TASKS
from tests.support.command_line import call
from tests.support.tiny_files import write_backbone, write_sst2

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder from the environment, no network."""
    monkeypatch.delenv("EFFICIENT_BERT_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refused(*arguments: object, store: Path) -> str:
    """The one line that a command fails with, having written nothing."""
    before = sorted(store.rglob("*"))
    answer = call(*arguments)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("bench: ")
    assert sorted(store.rglob("*")) == before
    return answer.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("run", ["--task"]),
        ("show", ["show"]),
        ("run --task sst-2", ["'sst-2'", "Did you mean 'sst2'?", *TASKS]),
        ("run --task demo --method entropy", ["'entropy'", "Did you mean 'entropy_exit'?", *METHODS]),
        ("run --task demo --patienc 2", ["--patienc", "--patience"]),
        ("run SST2 --method full --patience 2", ["'patience'", "full", "they have: none"]),
        ("run SST2 --method full --exits-epochs 2", ["'exits.epochs'", "full", "finetune.epochs"]),
        ("run SST2 --patience two", ["patience", "'two'", "a whole number in [1, inf)"]),
        ("run SST2 --patience 0", ["patience", "0", "[1, inf)"]),
        ("run SST2 --patience 9 --method patience_exit", ["patience is 9", "5 exits", "at most 4"]),
        ("run SST2 --exit-threshold -1", ["exit_threshold", "-1", "[0, inf)"]),
        ("run SST2 --exit-threshold nan", ["exit_threshold", "nan", "a number in [0, inf)"]),
        ("run SST2 --exit-threshold 0.1,,0.2", ["exit_threshold", "''", "a number in [0, inf)"]),
        ("run SST2 --method entropy_exit --exit-threshold 0.9", ["0.9", "[0, 0.693]"]),
        ("run SST2 --finetune-epochs 0", ["epochs", "0", "[1, 1000]"]),
        ("run SST2 --finetune-precision int3", ["'int3'", "auto, bf16"]),
        ("run SST2 --split test", ["'test'", "no labels", "bench predict --split test"]),
        ("run SST2 --split train", ["'train'", "trained on", "another split"]),
        ("run SST2 --split nope", ["no 'nope' split of task 'sst2'"]),
        ("run --task demo --split nope", ["no split 'nope'", "train, validation, test"]),
        ("predict SST2 --method full", ["--out"]),
        ("predict SST2 --method full --out answers --seed 1,2", ["--seed", "'1,2'"]),
        ("predict SST2 --method full --out answers", ["no 'test' split", "test.tsv"]),
        ("run --task demo --method width_gates --num-gates 4", ["num_gates is 4", "divide 6 layers equally"]),
        ("run --task demo --method static_subnet --width-list 0.01,1", ["0.01"]),
        ("run --task demo --method prefix_exit --depth-list 1,2", ["2"]),
        ("run --task demo --method flexible --width-list 0.5,1", ["2 classes", "[0.5, 1.0]", "--width-mult-list"]),
        ("run --task demo --method width_gates --width-mult-list 0.5,0.75", ["'0.5,0.75'", "4 classes"]),
        ("run --task demo --method random_widths --class-rates 0.5/0.5", ["'0.5/0.5'", "4 shares"]),
        ("run --task demo --method random_exits --exit-rates 0.1/0.1/0.1", ["'0.1/0.1/0.1'", "2 shares"]),
        ("run --task demo --method static_subnet --width-augment-copies 5", ["augment_copies", "give augment_model"]),
        (
            "run --task demo --method full --method flexible --width-augment-copies 5 --width-augment-model here "
            "--width-augment-vectors absent.txt",
            ["'absent.txt'", "is no file"],
        ),
        ("run --task demo --method width_gates --gates-class-weights foo", ["class_weights is 'foo'", "numbers"]),
        ("run --task demo --method width_gates --gates-class-weights 1,2", ["'1,2'", "4 numbers"]),
        ("sweep --task demo", ["give --method"]),
        ("sweep SST2 --method adapler --eta-scale 0.5,1", ["no points along eta_scale", "--no-controls"]),
        ("sweep SST2 --method adapler --phi 0.1,0.2 --eta-scale 0.5", ["_tokens has no points along eta_scale"]),
        ("run SST2 --method adapler --method last_tokens --eta-scale 2", ["last_tokens has no points along eta_scale"]),
        ("run SST2 --eta-scale 2", ["_tokens has no points along eta_scale", "by --method"]),
        ("run SST2 --method adapler --phi -1", ["phi", "-1", "[0, 1e+06]"]),
        ("run SST2 --method adapler --gamma -0.1", ["gamma", "-0.1", "[0, 1e+06]"]),
        ("run SST2 --method adapler --eta-scale -1", ["eta_scale", "-1", "[0, 100]"]),
        ("train SST2 --method adapler --adapler-initial-eta 2", ["initial_eta", "2", "1]"]),
        ("sweep --task demo --method flexible --width-mult-list 0.5,0.75,0.75,0.75", ["needs a knob with several"]),
        ("sweep --task demo --method adapler --phi 0.1", ["needs a knob with several values", "gamma, phi"]),
        ("run --task demo --preset fast", ["'fast'", "quick, paper, smoke"]),
        ("run --task demo --device tpu", ["'tpu'", "cpu or cuda"]),
        ("run --task demo --max-length 2", ["2", "3 to 512"]),
        ("run --task demo --max-length -4", ["-4", "3 to 512"]),
        ("run --task demo --train-rows -1", ["--train-rows", "-1", "x>=1"]),
        ("run SST2 --train-rows 1", ["1 training rows", "too few", "raise the limit"]),
        ("run --task demo --eval-rows 0", ["--eval-rows", "0", "x>=1"]),
        ("run --task demo --rounds -1", ["--rounds", "-1", "x>=0"]),
        ("run --task demo --latency-examples -1", ["--latency-examples", "-1", "x>=0"]),
        ("run --task demo --seed one", ["--seed", "'one'"]),
        ("run SST2 --seed -1", ["--seed", "-1"]),
        (f"run SST2 --seed {2**32}", ["--seed", str(2**32)]),
        ("run --task demo --backbone no//such!", ["'no//such!'", "neither a folder nor a hub name", "minilm"]),
        ("run --task demo --backbone some/model", ["'some/model'", "not in the hub's local cache", "minilm"]),
        ("run --task sst2", ["'nyu-mll/glue'", "--data-dir", "--task demo"]),
        ("run --task sst2 --data-dir absent", ["absent", "does not exist", "train.tsv"]),
        ("report absent --out report", ["folder absent does not exist", "give the runs/ folder"]),
        ("compare this that", ["'this'", "none yet"]),
        ("gold --task sst2 --out eraser", ["'sst2'", "--task demo"]),
        ("env --device tpu", ["'tpu'", "cpu or cuda"]),
    ],
)
def test_a_wrong_word_is_refused_in_one_line(
    arguments: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and one line with the value, the rule and what to do instead; nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_sst2(tmp_path / "sst2", train=12, dev=4)
    line = refused(*arguments.replace("SST2", "--task sst2 --data-dir sst2").split(), store=tmp_path)
    assert [part for part in parts if part not in line] == []


def test_a_missing_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device cuda` without a GPU says so and names the device that there is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = refused("run", "--task", "demo", "--device", "cuda", "--store", tmp_path, store=tmp_path)
    assert "no GPU" in line
    assert "--device cpu" in line


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("sentence\t", "text\t", ["train.tsv", "'sentence'", "text, label"]),
        ("\t1\n", "\t7\n", ["train.tsv, line 3", "'7'", "0 (negative), 1 (positive)"]),
        ("\t1\n", "\tgood\n", ["train.tsv, line 3", "'good'", "0 (negative), 1 (positive)"]),
        ("\t1\n", "\n", ["train.tsv, line 3", "1 tab-separated fields", "2"]),
        ("\t1\n", "\t1\t1\n", ["train.tsv, line 3", "3 tab-separated fields", "2"]),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(old: str, new: str, parts: list[str], tmp_path: Path) -> None:
    """A wrong column, label or row is named with its file and line."""
    path = write_sst2(tmp_path / "data", train=12, dev=4) / "train.tsv"
    path.write_text(path.read_text(encoding="utf8").replace(old, new, 1), encoding="utf8")
    line = refused("run", "--task", "sst2", "--data-dir", path.parent, "--store", tmp_path, store=tmp_path)
    assert [part for part in parts if part not in line] == []


def test_a_bug_is_not_dressed_up_as_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the program's own keeps its trace; only the packages' input errors become one line."""

    def broken(device: str) -> None:
        raise ValueError("not the user's fault")

    monkeypatch.setattr("bench.machine.environment.read_environment", broken)
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["env"])


def test_the_program_exits_with_two() -> None:
    """As a process, a refusal is exit code 2, one line on standard error and nothing on standard output."""
    command = [sys.executable, "-c", "from bench.cli import main; main()", "run", "--task", "sst-2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench: no task is called 'sst-2'.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"num_hidden_layers": 3}, r"lack \d+ tensors that its config.json asks for"),
        ({"intermediate_size": 64}, r"hold \d+ tensors of other sizes than its config.json asks for, bert\."),
        ({"num_attention_heads": 3}, "hidden_size is 16, but 3 heads must share it equally"),
        ({"hidden_act": "nope"}, "hidden_act is 'nope'"),
    ],
)
def test_a_backbone_that_does_not_fit_its_weights_is_refused(
    change: dict[str, object], part: str, tmp_path: Path
) -> None:
    """A configuration that asks for more than the weights hold, or for what does not exist, is one line."""
    folder = write_backbone(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    (folder / "config.json").write_text(json.dumps(config | change), encoding="utf8")
    asked = ["run", "--task", "demo", "--preset", "smoke", "--max-length", "64", "--backbone", folder]
    line = refused(*asked, store=tmp_path)
    assert re.search(part, line)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    """Half a safetensors file is one line that names the backbone."""
    folder = write_backbone(tmp_path / "bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    asked = ["run", "--task", "demo", "--preset", "smoke", "--max-length", "64", "--backbone", folder]
    line = refused(*asked, store=tmp_path)
    assert "the weights of backbone 'bert' cannot be read" in line


def test_a_report_folder_with_other_files_is_refused_before_training(tmp_path: Path) -> None:
    """The folder for the report is looked at first: nothing is trained when it holds something else."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.txt").write_text("x", encoding="utf8")
    asked = ["run", "--task", "demo", "--preset", "smoke", "--report", tmp_path / "report"]
    assert "report" in refused(*asked, store=tmp_path)
    assert not (tmp_path / "artifacts").exists()
