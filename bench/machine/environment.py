"""Read the machine and the settings of libraries while a run measures, as they are rather than as they were given."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import __version__
from bench.machine.cgroups import quota
from bench.machine.load import attempt, load_between, read, usable_cores

CPU_INFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "fvcore", "numpy", "onnxruntime")
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "i8mm", "bf16")
"""Instruction sets that decide how fast a CPU multiplies in float32, int8 and bfloat16, as Linux names them."""


def read_environment(device: str) -> dict[str, Any]:
    """Read the machine, threads, numerics and versions that decide a measurement on `device` ("cpu" or "cuda").

    Holds no host name, no user name and no path; every value is JSON.
    """
    import torch

    commit, dirty = _commit()
    gpu = torch.device(device).type == "cuda"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_instructions": _instructions(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota": attempt(quota),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if gpu else _cpu_name(),
        "torch_threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": {"efficient-bert": __version__, **{name: _version(name) for name in PACKAGES}},
        "cuda": torch.version.cuda if gpu else None,
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "sdpa_kernels": _sdpa_kernels(),
        "commit": commit,
        "dirty": dirty,
    }


def crowding_line(environment: Mapping[str, Any]) -> str:
    """Say that there are more threads than may run at once, and what to do; empty where there are not."""
    limits = {"cores": environment["usable_cores"], "cores of a quota": environment["cpu_quota"]}
    few, kind = min((limit, kind) for kind, limit in limits.items() if limit)
    if environment["torch_threads"] <= few:
        return ""
    return f"more than the {few:g} {kind} that this process may use: set OMP_NUM_THREADS={max(1, int(few))}"


def read_load(seconds: float = 0.5) -> dict[str, Any]:
    """Measure the load on the machine while this process sleeps for so long."""
    import torch

    before = read()
    time.sleep(seconds)
    load = load_between(before, read(), threads=torch.get_num_threads()).to_json()
    return {name: value for name, value in load.items() if name != "off_core"}  # this process slept


def _sdpa_kernels() -> list[str]:
    """Return the kernels that scaled_dot_product_attention may choose from; torch keeps one set of switches for all."""
    from torch.backends import cuda

    kernels = ("flash", "mem_efficient", "cudnn", "math")
    return [name for name in kernels if getattr(cuda, f"{name}_sdp_enabled")()]


def _cpu_name() -> str:
    return _of_first_core("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """Return those of `INSTRUCTIONS` that the CPU has; none where the system does not say."""
    words = (_of_first_core("flags") or _of_first_core("Features")).split()
    return [name for name in INSTRUCTIONS if name in words]


def _of_first_core(key: str) -> str:
    """Return what Linux says of the first core under a key; nothing where it does not say."""
    if not CPU_INFO.is_file():
        return ""
    lines = CPU_INFO.read_text(encoding="utf8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether files differ from it; (None, None) outside a checkout."""
    # An installed copy may lie inside another project's repository: only one that tracks this very file counts.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return (commit, bool(changes)) if commit else (None, None)


def _git(*arguments: str) -> str | None:
    """Return what a git command prints, run beside this file; None where it fails or git is absent."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        [git, *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
