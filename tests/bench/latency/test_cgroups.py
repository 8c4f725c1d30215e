"""The quota of a control group, read from folders as Linux lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.machine.cgroups import quota, seconds_held_back

UNLIMITED = "max 100000\n"


def lay(root: Path, files: Mapping[str, str]) -> Path:
    """Files below a root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    return root


V2 = {
    "proc/self/cgroup": "0::/user.slice/job\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 5\n",
    "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/user.slice/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_usec 500000\n",
    "sys/fs/cgroup/user.slice/job/cpu.max": UNLIMITED,
    "sys/fs/cgroup/user.slice/job/cpu.stat": "nr_throttled 0\nthrottled_usec 0\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 2500000000\n",
}


@pytest.mark.parametrize(
    ("files", "cores", "seconds"),
    [
        (V2, 1.5, 0.5),
        ({**V2, "sys/fs/cgroup/user.slice/job/cpu.max": "20000 100000\n"}, 0.2, 0.5),
        ({**V2, "sys/fs/cgroup/user.slice/cpu.max": UNLIMITED}, None, 0.5),
        (V1, 0.5, 2.5),
        ({**V1, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n"}, None, 2.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4.0, None),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, None, None),
        ({"proc/self/cgroup": "1:cpu:/\n0::/\n", "sys/fs/cgroup/unified/cpu.max": "100000 100000"}, 1.0, None),
        ({"proc/self/cgroup": "nonsense\n\n0::/a", "sys/fs/cgroup/cpu.max": "a b c"}, None, None),
        ({}, None, None),
    ],
    ids=["v2_parent", "v2_own", "v2_max", "v1", "v1_none", "container", "outside", "hybrid", "damaged", "no_linux"],
)
def test_the_smallest_limit_above_this_process_counts(
    tmp_path: Path, files: Mapping[str, str], cores: float | None, seconds: float | None
) -> None:
    """Both versions, at any level, in a container that sees only its own group, and where there is nothing to read."""
    lay(tmp_path, files)
    assert quota(tmp_path) == cores
    assert seconds_held_back(tmp_path) == seconds
