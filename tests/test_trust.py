"""The figures, for some seconds: scripts/trust takes them for as long as they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mounts import can_mount, mounted
from tests.trust import Times, kill_readers, kill_sides

needs_mount = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")


@pytest.mark.mount
@needs_mount
def test_readers_that_are_killed_are_gone(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        assert len(kill_readers(mount, 60, seed=1).taken) == 60


@pytest.mark.mount
@needs_mount
def test_either_side_is_killed_and_the_other_goes_on() -> None:
    assert [len(times.taken) for times in kill_sides(3, seed=1)] == [3, 3]


def test_what_takes_too_long_is_counted() -> None:
    times = Times("readers", 50, [1, 2, 50, 51])
    assert times.slow == 1
    assert "slowest 51.0 ms; 1 over 50 ms" in str(times)
