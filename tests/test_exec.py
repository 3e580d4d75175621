"""`hyptrace exec`: what a command sees, what becomes of it, and that nothing else changes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyptracefs.mount_table import mounts
from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until
from tests.tools import HYPTRACE, on, run

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

TRACING = "/sys/kernel/tracing"
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

# A machine's state that the tools change when nothing keeps them from it.
SYSCTLS = ("/proc/sys/kernel/ftrace_enabled", "/proc/sys/kernel/kptr_restrict")


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """With a number of CPUs that is not the machine's."""
    cpus = f"cpus={(os.cpu_count() or 1) + 1}"
    with mounted(tmp_path_factory.mktemp("mount"), "workload=idle", cpus) as mount:
        yield mount


def in_namespace(setup: str, *command: str) -> subprocess.CompletedProcess[str]:
    """`command` in a mount namespace in which `setup`, a shell script, has run."""
    script = f"set -e; {setup}; exec {shlex.join(command)}"
    return run("unshare", "-m", "--propagation", "private", "bash", "-c", script)


def without(fs_type: str, *, but: Path | str = "") -> str:
    """A script that removes all mounts of a type, but those at `but`."""
    return (
        f"for each in $(findmnt -n -r -o TARGET -t {fs_type} | tac); "
        f"do [ $each = '{but}' ] || umount -l $each; done"
    )


NO_TRACEFS = without("tracefs")
WITH_TRACEFS = (
    f"grep -q ' {TRACING} .* tracefs ' /proc/self/mountinfo || mount -t tracefs nodev {TRACING}"
)


def seen(mount: Mount, path: str, setup: str = ":") -> str:
    done = in_namespace(setup, *on(mount.path, "cat", path))
    assert done.stderr == ""
    return done.stdout


# --- what the command sees ----------------------------------------------------------------


@pytest.mark.parametrize("setup", [NO_TRACEFS, WITH_TRACEFS], ids=["no tracefs", "tracefs"])
def test_the_mount_stands_where_tools_look(mount: Mount, setup: str) -> None:
    assert seen(mount, f"{TRACING}/available_events", setup) == (
        mount.path / "available_events"
    ).read_text(encoding="ascii")
    # Tools look for this, and else mount the kernel's over ours.
    table = seen(mount, "/proc/mounts", setup)
    assert f" {TRACING} tracefs " in table
    assert f" {TRACING} tmpfs " not in table  # for scratch files, for a moment


def test_each_tracefs_is_covered(mount: Mount, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    setup = f"{WITH_TRACEFS}; mount -t tracefs nodev {other}"
    assert seen(mount, f"{other}/current_tracer", setup) == "nop\n"
    assert seen(mount, f"{other}/instances/hypervisor/tracing_on", setup) == "0\n"


def test_cpus_are_those_of_the_hypervisor(mount: Mount) -> None:
    cpus = (os.cpu_count() or 1) + 1
    assert run(*on(mount.path, "getconf", "_NPROCESSORS_CONF")).stdout == f"{cpus}\n"


def test_one_cpu_is_a_list_of_one(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=idle", "cpus=1") as mount:
        assert seen(mount, "/sys/devices/system/cpu/possible") == "0\n"


def test_what_it_writes_to_the_machine_stays_with_it(mount: Mount) -> None:
    before = [Path(path).read_text(encoding="ascii") for path in SYSCTLS]
    script = "; ".join(f"cat {path}; echo 7 >{path} && cat {path}" for path in SYSCTLS)
    assert run(*on(mount.path, "sh", "-c", script)).stdout == f"1\n7\n{before[1]}7\n"
    assert [Path(path).read_text(encoding="ascii") for path in SYSCTLS] == before


def test_where_it_stands_is_the_mount_too(mount: Mount) -> None:
    """In a shell that was in the kernel's tracing directory."""
    done = in_namespace(f"{WITH_TRACEFS}; cd {TRACING}", *on(mount.path, "cat", "current_tracer"))
    assert done.stdout == "nop\n"
    done = in_namespace(f"{WITH_TRACEFS}; cd {TRACING}", *on(mount.path, "ls", "hypervisor"))
    assert "selftest_event" in done.stdout


def test_nothing_is_left(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=idle") as mount:
        before = list(mounts())
        assert run(*on(mount.path, "true")).returncode == 0
        assert list(mounts()) == before
        assert run("umount", str(mount.path)).returncode == 0  # nobody holds it
        mount.wait_ended()


def test_what_it_mounts_is_mounted_for_nobody_else(mount: Mount) -> None:
    """Where mounts are shared, as systemd has it."""
    count = "grep -c . /proc/self/mountinfo"
    command = shlex.join(on(mount.path, "sh", "-c", f"{count}; cat {TRACING}/tracing_on"))
    done = in_namespace(f"mount --make-rshared /; {count}; {command}", "sh", "-c", count)
    outside, inside, showed, afterwards = done.stdout.split()
    assert int(inside) > int(outside)
    assert showed == "0"
    assert afterwards == outside


@pytest.mark.parametrize("setup", [NO_TRACEFS, WITH_TRACEFS], ids=["no tracefs", "tracefs"])
def test_a_mount_for_the_whole_machine_is_one_like_others(mount: Mount, setup: str) -> None:
    """It stands where we work."""
    setup = f"{setup}; mount --bind {mount.path} {TRACING}"
    command = [*HYPTRACE, "exec", "--mount", TRACING, "cat", f"{TRACING}/tracing_on"]
    done = in_namespace(setup, *command)
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- what becomes of it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], -9),
        (["/etc/passwd"], 126),
        (["nosuch-command"], 127),
    ],
)
def test_the_status_is_that_of_the_command(mount: Mount, command: list[str], status: int) -> None:
    done = run(*on(mount.path, *command))
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == (status in (126, 127))


def test_a_command_that_looks_like_options_of_ours(mount: Mount) -> None:
    command = [*HYPTRACE, "exec", "--mount", str(mount.path)]
    assert run(*command, "echo", "--mount", "x", "--help").stdout == "--mount x --help\n"
    assert run(*command, "--", "echo", "-n").stdout == ""


def test_it_is_our_process(mount: Mount) -> None:
    """So signals, also ^C, are its own."""
    # Who runs us in the background of a shell has us, and it, ignore SIGINT.
    command = ["env", "--default-signal", *on(mount.path, "sleep", "1000")]
    with subprocess.Popen(command) as process:
        try:
            proc = Path(f"/proc/{process.pid}")
            until(lambda: (proc / "comm").read_text(encoding="ascii") == "sleep\n", "sleep to run")
            children = proc / f"task/{process.pid}/children"
            assert not children.read_text(encoding="ascii")
            status = (proc / "status").read_text(encoding="ascii")
            assert "SigIgn:\t0000000000000000\n" in status
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE_S) == -signal.SIGINT
        finally:
            process.kill()


def test_the_only_mount_needs_no_name(mount: Mount) -> None:
    setup = without("fuse.hyptracefs", but=mount.path)
    done = in_namespace(setup, *HYPTRACE, "exec", "cat", f"{TRACING}/tracing_on")
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- users --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """For nobody."""
    options = ("workload=idle", "cpus=3", "allow_other", f"uid={NOBODY}", f"gid={NOBODY}")
    with mounted(tmp_path_factory.mktemp("shared"), *options) as mount:
        yield mount


def as_nobody(mount: Mount, setup: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Where nobody can reach the mount: tmp_path is root's alone."""
    place = "/mnt"
    setup = f"{setup}; mount --bind {mount.path} {place}; umount -l {mount.path}"
    return in_namespace(setup, *AS_NOBODY, *HYPTRACE, "exec", "--mount", place, "--", *command)


needs_user_namespaces = pytest.mark.skipif(
    subprocess.run([*AS_NOBODY, "unshare", "-rm", "true"], check=False, capture_output=True)
    .returncode != 0,
    reason="this machine gives users no namespaces",
)  # fmt: skip


@needs_user_namespaces
def test_a_user_can(shared: Mount) -> None:
    script = f"cat {TRACING}/available_tracers /sys/devices/system/cpu/possible; id -u"
    done = as_nobody(shared, WITH_TRACEFS, "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("nop\n0-2\n0\n", "")


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line that says what and what to do."""
    assert done.returncode == status, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("hyptrace: ")
    for word in words:
        assert word in line


@needs_user_namespaces
def test_a_user_cannot_make_a_tracefs(shared: Mount) -> None:
    done = as_nobody(shared, NO_TRACEFS, "true")
    refused(done, 1, "type tracefs", f"mount -t tracefs nodev {TRACING}")


def test_a_machine_that_gives_users_no_namespaces(shared: Mount) -> None:
    """As a container does: by a filter, or, here, because one level of them is all there is."""
    limits = "for what in user mnt; do echo 0 >/proc/sys/user/max_${what}_namespaces; done"
    inner = shlex.join(["unshare", "-rm", "bash", "-c", f"{limits}; exec $0 $@"])
    command = f"{inner} {shlex.join([*HYPTRACE, 'exec', '--mount', '/mnt', 'true'])}"
    done = in_namespace(f"mount --bind {shared.path} /mnt", *AS_NOBODY, "bash", "-c", command)
    refused(done, 1, "needs a mount namespace", "run it as root")


def test_the_mount_of_another_user(mount: Mount) -> None:
    done = as_nobody(mount, WITH_TRACEFS, "true")
    refused(done, 1, "mounted by another user", f"-o allow_other,uid={NOBODY}")


# --- when it cannot -----------------------------------------------------------------------


def test_no_mount() -> None:
    done = in_namespace(without("fuse.hyptracefs"), *HYPTRACE, "exec", "true")
    refused(done, 1, "no hyptracefs is mounted", "hyptracefs model /mnt/hyp")


def test_several_mounts(mount: Mount, tmp_path: Path) -> None:
    with mounted(tmp_path / "second", "workload=idle") as second:
        done = run(*HYPTRACE, "exec", "true")
        refused(done, 2, str(mount.path), str(second.path), "--mount DIR")


def test_a_bind_of_a_mount_is_no_second_one(mount: Mount) -> None:
    setup = f"{without('fuse.hyptracefs', but=mount.path)}; mount --bind {mount.path} /mnt"
    done = in_namespace(setup, *HYPTRACE, "exec", "true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["/nonexistent", "/etc", "/etc/passwd", "/proc", "hypervisor"])
def test_what_is_no_mount(mount: Mount, name: str) -> None:
    where = mount.path / name
    refused(run(*on(where, "true")), 1, f"{where} is no mount of hyptracefs")


def test_a_dead_mount(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=idle") as mount:
        mount.server.kill()
        mount.server.wait()
        done = run(*on(mount.path, "true"))
        refused(done, 1, "dead mount", f"umount -l {mount.path}")
        mount.die()
