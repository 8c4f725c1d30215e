"""Training in several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.artifacts import ArtifactStore
from tests.tiny_files import write_backbone, write_sst2

ROOT = Path(__file__).parents[1]


def test_two_processes_train_together(tmp_path: Path) -> None:
    """Both stages finish once: one process speaks, one model of each is stored, nothing else is left."""
    write_backbone(tmp_path / "bert")
    write_sst2(tmp_path / "sst2", train=50, dev=20)
    places = ["--backbone", str(tmp_path / "bert"), "--data-dir", str(tmp_path / "sst2"), "--store", str(tmp_path)]
    asked = ["train", "--task", "sst2", "--method", "entropy_exit", "--exit-threshold", "0.6", "--device", "cpu"]
    short = ["--finetune-epochs", "1", "--exits-epochs", "1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bench"]
    done = subprocess.run([*launcher, *asked, *short, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("plan ") == 1
    stored = sorted(path.name.partition("-")[0] for path in ArtifactStore(tmp_path / "artifacts").root.iterdir())
    assert stored == ["exits", "finetune"]
