"""A user without privileges, with a model of their own: by fusermount3, or in a user namespace.

Root plays the user here, in a mount namespace in which everybody may open /dev/fuse, as most
machines have it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mounts import can_mount

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="plays another user, so it needs root"),
    pytest.mark.skipif(not can_mount(), reason="needs /dev/fuse"),
]

_FUSE = os.makedev(10, 229)  # as the kernel's list of devices has it
_NOBODY = "65534"
_AS_THEM = (
    # Most machines have one; where it cannot be made, the one test that needs it says so.
    "mount -t tracefs nodev /sys/kernel/tracing 2> /dev/null; "
    'mount --bind "$1" /dev/fuse && shift && '
    f'exec setpriv --reuid={_NOBODY} --regid={_NOBODY} --clear-groups "$@"'
)
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


class User:
    """Somebody who may open /dev/fuse, and has a directory, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir()
        os.chown(self.home, int(_NOBODY), int(_NOBODY))
        self._device = directory / "fuse"
        os.mknod(self._device, stat.S_IFCHR, _FUSE)
        self._device.chmod(0o666)

    def run(self, *command: str, patience_s: int = 100) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", _AS_THEM, "sh", str(self._device), *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=patience_s,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self.home), "TMPDIR": str(self.home)},
        )

    def in_home(self, *prefix: str, script: str) -> subprocess.CompletedProcess[str]:
        """A script of the shell, whose first argument is Python."""
        return self.run(*prefix, "sh", "-c", f'cd "{self.home}"\n{script}', "sh", sys.executable)

    def works(self, *command: str) -> bool:
        return self.run(*command).returncode == 0


@pytest.fixture
def user(open_directory: Path) -> User:
    made = User(open_directory)
    if not made.works("test", "-r", sys.executable):
        pytest.skip(f"{sys.executable} cannot be run by others")
    if not made.works("sh", "-c", ": <> /dev/fuse"):
        pytest.skip(f"no devices can be made in {tempfile.gettempdir()}")
    return made


def run_tests(user: User, prefix: Sequence[str], *names: str) -> str:
    """These tests, as the user; how they ended."""
    done = user.run(
        *prefix,
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"),
        f"--basetemp={user.home}/pytest",
        *names,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


# What a session is made of: reading in all ways, ends of readers and of mounts, the tools.
_SESSION = (
    "tests/test_mount.py::test_trace_pipe_merges_the_cpus_by_time",
    "tests/test_mount.py::test_raw_pages_are_pages",
    "tests/test_mount.py::test_a_stopped_reader_goes_on",
    "tests/test_mount.py::test_many_blocked_readers_do_not_block_the_rest",
    "tests/test_mount.py::test_use_works_as_in_a_shell",
    "tests/test_mount.py::test_signals_end_the_mount_with_readers_blocked",
    "tests/test_mount.py::test_forced_umount_ends_the_server_and_its_blocked_readers",
    "tests/test_ends.py::test_fusermount_ends_the_server",
    "tests/test_ends.py::test_killed_it_ends_its_readers_and_its_model_and_leaves_a_dead_mount",
    "tests/test_record.py::test_each_event_is_in_it_once",
    "tests/test_attach.py::test_the_hypervisor_outlives_its_hosts",
    "tests/test_attach.py::test_the_next_hypervisor_is_attached_to",
    "tests/test_splice.py::test_of_two_who_share_an_open_file_each_can_be_killed",
    "tests/test_hostile_user.py::test_creating_linking_and_renaming",
)


def test_in_a_user_namespace_all_of_a_session_works(user: User) -> None:
    if not user.works(*_NAMESPACE, "true"):
        pytest.skip("users may not make user namespaces here")
    ended = run_tests(user, _NAMESPACE, *_SESSION)
    assert "passed" in ended
    assert "skipped" not in ended


_TOOLS = """
set -e
mkdir mnt
"$1" -m hyptracefs model mnt -o cpus=2
trap 'umount -l mnt' EXIT
"$1" -m hyptrace exec --mount "$PWD/mnt" -- cat /sys/kernel/tracing/current_tracer
"$1" -m hyptrace exec --mount "$PWD/mnt" -- trace-cmd record -q -e hypervisor sleep 0.3
"$1" -m hyptrace report trace.dat | grep -c hyp_enter
trap - EXIT
umount mnt
"""


def test_in_a_user_namespace_the_tools_work(user: User) -> None:
    if not user.works(*_NAMESPACE, "grep", "-q", " - tracefs ", "/proc/self/mountinfo"):
        pytest.skip("no user namespaces here, or no tracefs")
    done = user.in_home(*_NAMESPACE, script=_TOOLS)
    assert done.returncode == 0, done.stdout + done.stderr
    tracer, events = done.stdout.splitlines()
    assert tracer == "nop"
    assert int(events) > 0


_BY_FUSERMOUNT = """
set -e
mkdir mnt
python=$1
"$python" -m hyptracefs model mnt -o cpus=2,workload=idle
trap 'fusermount3 -u -z mnt' EXIT
stat -c %u mnt
cd mnt/hypervisor
echo 1 > events/hypervisor/selftest/enable
echo 1 > tracing_on
echo 7 > ../remotes/hypervisor/write_event
timeout 10 head -n 1 trace_pipe
cd ../..
trap - EXIT
fusermount3 -u mnt
! mountpoint -q mnt
"""


def test_by_fusermount_a_session_works(user: User) -> None:
    fusermount = shutil.which("fusermount3")
    if fusermount is None or not os.stat(fusermount).st_mode & stat.S_ISUID:  # noqa: PTH116
        pytest.skip("fusermount3 is not there, or not setuid root")
    done = user.in_home(script=_BY_FUSERMOUNT)
    assert done.returncode == 0, done.stdout + done.stderr
    owner, event = done.stdout.splitlines()
    assert owner == _NOBODY
    assert event.endswith("selftest id=7")
