"""scripts/golden: the mainline view of a mount is as golden, and what is not is found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import Mount, can_mount, mounted

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "golden"
GOLDEN = Path(os.environ.get("HYPTRACEFS_GOLDEN") or ROOT.parent / "shared" / "golden")

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
    pytest.mark.skipif(
        not GOLDEN.is_dir(),
        reason=f"no golden output at {GOLDEN}, which is not part of the project: "
        "set HYPTRACEFS_GOLDEN",
    ),
    pytest.mark.skipif(
        not {0, 1} <= os.sched_getaffinity(0), reason="golden is of two CPUs: needs CPUs 0 and 1"
    ),
]

_OF = {"hypervisor": "pkvm-arm64", "test": "test-arm64"}
_RECORDINGS = (
    *("files-initial.txt", "stat.txt", "ls-lR.txt", "session.txt", "errno.txt"),
    *("overrun.txt", "capacity.txt", "nonconsuming.txt", "files-after.txt"),
)
_CASES = [
    (name, recording)
    for name, golden in _OF.items()
    for recording in _RECORDINGS
    if (GOLDEN / golden / recording).exists()
]


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("golden"), "cpus=2,workload=idle") as mount:
        yield mount


def _golden(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True)


@pytest.mark.parametrize(("name", "recording"), _CASES)
def test_a_remote_is_as_golden(mount: Mount, name: str, recording: str) -> None:
    done = _golden("-r", recording, GOLDEN / _OF[name], mount.path / "remotes" / name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_differs_is_shown(mount: Mount, tmp_path: Path) -> None:
    """A golden that says something else, in two places."""
    was = (GOLDEN / "test-arm64" / "files-initial.txt").read_text(encoding="ascii")
    other = was.replace("7 (unloaded)", "8 (unloaded)").replace("print fmt", "print format")
    (tmp_path / "files-initial.txt").write_text(other, encoding="ascii")
    (tmp_path / "errno.txt").touch()
    done = _golden("-r", "files-initial.txt", tmp_path, mount.path / "remotes" / "test")
    assert done.returncode == 1, done.stderr
    assert "\n-8 (unloaded)\n+7 (unloaded)\n" in done.stdout
    assert '\n-print format: "id=%llu", REC->id\n+print fmt: "id=%llu", REC->id\n' in done.stdout


def test_what_cannot_be_compared_is_refused(mount: Mount, tmp_path: Path) -> None:
    for arguments, why in (
        ([tmp_path, mount.path / "remotes" / "test"], "no golden output there"),
        ([GOLDEN / "pkvm-arm64", mount.path / "hypervisor"], "no write_event"),
        (["-r", "nothing.txt", mount.path / "remotes" / "test"], "no replay of nothing.txt"),
    ):
        done = _golden(*arguments)
        assert done.returncode == 2
        assert why in done.stderr
