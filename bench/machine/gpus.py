"""Ask the driver's tool which other processes are on the GPU."""

from __future__ import annotations

import shutil
import subprocess


def other_processes(device: str) -> int | None:
    """Count other processes that compute on the current GPU; None on a CPU, or where that cannot be known.

    A container's driver may hide all processes or show this one too: one of those that are shown is taken for this.
    """
    listing = _nvidia_smi("--query-compute-apps=pid") if device == "cuda" else None
    return None if listing is None else max(0, len(listing) - 1)


def _nvidia_smi(query: str) -> list[str] | None:
    """Return the lines that the driver's tool prints about the current GPU; None where it is absent or fails."""
    import torch

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    identity = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [tool, query, "--format=csv,noheader", f"--id={identity}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else None
