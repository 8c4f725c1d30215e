"""Training in several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from bench.store.artifacts import ArtifactStore
from tests.support.tiny_files import write_backbone, write_sst2

ROOT = Path(__file__).parents[3]


def trained(store: Path, *, processes: int) -> subprocess.CompletedProcess[str]:
    """Train a model without dropout and its exits in so many processes; 49 rows in batches of 3, the last one of 1."""
    inputs = store.parent
    places = ["--backbone", str(inputs / "bert"), "--data-dir", str(inputs / "sst2"), "--store", str(store)]
    asked = ["train", "--task", "sst2", "--method", "entropy_exit", "--exit-threshold", "0.6", "--device", "cpu"]
    short = [
        "--finetune-epochs",
        "2",
        "--exits-epochs",
        "1",
        "--finetune-adversarial",
        "0.5",
        "--finetune-batch-size",
        "3",
        "--finetune-precision",
        "no",
    ]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else ()), "bench", *asked, *short, *places]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    """One process speaks, one model of each stage is stored, and its parameters are those of a single process."""
    write_backbone(tmp_path / "bert", dropout=0.0)
    write_sst2(tmp_path / "sst2", train=52, dev=20)
    stores = {processes: tmp_path / f"store{processes}" for processes in (1, 2)}
    for processes, store in stores.items():
        done = trained(store, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("plan ") == 1
        assert "49 training rows" in done.stdout
    found = {processes: ArtifactStore(store / "artifacts").root for processes, store in stores.items()}
    names = sorted(path.name for path in found[1].iterdir())
    assert [name.partition("-")[0] for name in names] == ["exits", "finetune"]
    assert names == sorted(path.name for path in found[2].iterdir())
    for name in names:
        one, two = (load_file(found[processes] / name / "model.safetensors") for processes in (1, 2))
        assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher gives each process one thread; a single process has as many."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
