"""Read how much of the processor a Linux control group grants, and how long it held its processes back.

Versions 1 and 2 are read, at the group of this process and at those above it. Elsewhere there is nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNTS = {"": ("unified", ""), "cpu": ("{controllers}", "cpu")}
"""Controller -> where it may be mounted below sys/fs/cgroup; "" is version 2, beside version 1 or alone."""


def quota(root: Path = Path("/")) -> float | None:
    """Return how many cores all processes of the group may use together; None where nothing limits them."""
    limits = [limit for folder in _folders(root) if (limit := _quota_of(folder)) is not None]
    return min(limits, default=None)


def seconds_held_back(root: Path = Path("/")) -> float | None:
    """Return for how many seconds the quota has held processes of the group back so far, summed over cores."""
    counts = [seconds for folder in _folders(root) if (seconds := _held_back_in(folder)) is not None]
    return sum(counts) if counts else None


def _folders(root: Path) -> Iterator[Path]:
    """Return the folders of this process's groups and of those above them.

    A container often sees only its own group, mounted where the root would be, while the path is that of the host.
    """
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        kind = "cpu" if "cpu" in controllers.split(",") else controllers
        names = [name.format(controllers=controllers) for name in _MOUNTS.get(kind, ())]
        mount = next((folder for name in names if (folder := root / "sys/fs/cgroup" / name).is_dir()), None)
        below = PurePosixPath(path.lstrip("/"))
        if mount is not None and ".." not in below.parts:
            yield from (folder for part in (below, *below.parents) if (folder := mount / part).is_dir())


def _quota_of(folder: Path) -> float | None:
    """Return the limit of one group: `cpu.max` of version 2, else the two files of version 1."""
    limit, period = [*(_text(folder / "cpu.max") or "").split(), "", ""][:2]
    limit = limit or (_text(folder / "cpu.cfs_quota_us") or "").strip()
    period = period or (_text(folder / "cpu.cfs_period_us") or "").strip()
    if not (limit.isdecimal() and period.isdecimal()):
        return None  # "max" and "-1" are no limit
    return int(limit) / int(period) if int(limit) and int(period) else None


def _held_back_in(folder: Path) -> float | None:
    lines = [line.split() for line in (_text(folder / "cpu.stat") or "").splitlines()]
    counts = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}
    if "throttled_usec" in counts:
        return counts["throttled_usec"] / 1e6
    return counts["throttled_time"] / 1e9 if "throttled_time" in counts else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf8", errors="replace")
    except OSError:
        return None
