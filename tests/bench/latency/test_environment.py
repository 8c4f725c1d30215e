"""The environment is read back, complete, and says nothing about people or places."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import __version__
from bench.machine import environment
from bench.machine.environment import read_environment


def test_it_is_json_and_names_the_machine() -> None:
    """What is read survives JSON and agrees with the libraries' own answers."""
    found = json.loads(json.dumps(read_environment("cpu"), allow_nan=False))
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["efficient-bert"] == __version__, "of the code that runs, whatever is installed"
    assert found["python"] == platform.python_version()
    assert found["logical_cores"] == os.cpu_count()
    assert found["device_name"] == found["cpu"] != ""
    assert found["cuda"] is None


def test_it_holds_no_host_user_or_path() -> None:
    """Neither the host's name, nor the user's, nor any folder of this machine appears."""
    values = json.dumps(read_environment("cpu"))
    assert platform.node() not in values
    assert str(Path.cwd()) not in values
    assert str(Path.home()) not in values
    words = values.replace('"', " ").split()
    assert getpass.getuser() not in words


def test_settings_are_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed number of threads, precision, kernel and variable shows, because nothing is remembered."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    try:
        torch.set_num_threads(threads + 1)
        torch.set_float32_matmul_precision("high")
        with sdpa_kernel(SDPBackend.MATH):
            found = read_environment("cpu")
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    assert found["torch_threads"] == threads + 1
    assert found["float32_matmul_precision"] == "high"
    assert found["sdpa_kernels"] == ["math"]
    assert found["omp_num_threads"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert read_environment("cpu")["omp_num_threads"] is None


def test_instruction_sets_are_those_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that decide speed are named, as Linux says of the first core; nothing where it says nothing."""
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "CPU_INFO", info)
    assert read_environment("cpu")["cpu_instructions"] == []
    info.write_text("model name\t: Fast CPU\nflags\t\t: fpu amx_int8 avx512_vnni sse avx2\n\nflags\t: other\n")
    values = read_environment("cpu")
    assert (values["cpu"], values["cpu_instructions"]) == ("Fast CPU", ["avx2", "avx512_vnni", "amx_int8"])
    info.write_text("Features\t: fp asimd i8mm bf16\n")
    assert read_environment("cpu")["cpu_instructions"] == ["i8mm", "bf16"]


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA device the device's name is the GPU's, and the processor's is kept beside it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    found = read_environment("cuda:1")
    assert found["device_name"] == "GPU of cuda:1"
    assert found["cpu"] != found["device_name"]


def test_the_commit_counts_only_where_the_code_is_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracked copy has its commit and a dirty flag; a copy in somebody else's repository has neither."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")

    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run([git, *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    copy = tmp_path / "environment.py"
    copy.write_text("", encoding="utf8")
    monkeypatch.setattr(environment, "__file__", str(copy))
    assert environment._commit() == (None, None)
    run("init", "--quiet")
    run("commit", "--quiet", "--allow-empty", "-m", "first")
    assert environment._commit() == (None, None)
    run("add", "environment.py")
    run("commit", "--quiet", "-m", "second")
    assert environment._commit() == (run("rev-parse", "HEAD"), False)
    copy.write_text("changed", encoding="utf8")
    assert environment._commit() == (run("rev-parse", "HEAD"), True)


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git is absent, the commit is unknown and nothing fails."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = read_environment("cpu")
    assert (found["commit"], found["dirty"]) == (None, None)
