"""The command: in the background, by way of mount(8), and when it cannot mount."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyptracefs.daemon import END_SIGNALS
from hyptracefs.mount_table import FS_TYPE, mount_at
from tests.mounts import PATIENCE_S, can_mount, mounted, until

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

COMMAND = [sys.executable, "-m", "hyptracefs"]

needs_launcher = pytest.mark.skipif(
    shutil.which("hyptracefs", path="/usr/local/bin") is None,
    reason="scripts/setup has put no launcher into /usr/local/bin",
)


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, check=False, capture_output=True, text=True, timeout=PATIENCE_S, **options
    )


def servers_of(where: Path) -> list[int]:
    """Processes that serve a mount at `where`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(where).encode() in words and any(w.startswith(b"--ready-fd") for w in words):
            found.append(int(process.parent.name))
    return found


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on; afterwards nothing is left of it."""
    where = tmp_path / "mnt"
    where.mkdir()
    yield where
    while mount_at(str(where)):
        run("umount", "-l", str(where))
    until(lambda: not servers_of(where), "the server to end")


def fstype(where: Path) -> str | None:
    mount = mount_at(str(where))
    return mount.fs_type if mount else None


FORMS = {
    "hyptracefs": [*COMMAND, "model", "{}", "-o", "cpus=4"],
    "mount -t fuse.hyptracefs": ["mount", "-t", "fuse.hyptracefs", "model", "{}", "-o", "cpus=4"],
    "mount -t fuse": ["mount", "-t", "fuse", "hyptracefs#model", "{}", "-o", "cpus=4"],
}


@needs_launcher
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_each_form_mounts_and_umount_ends_it(where: Path, form: list[str]) -> None:
    done = run(*(word.format(where) for word in form))
    assert (done.returncode, done.stderr) == (0, "")
    assert fstype(where) == FS_TYPE
    assert len(list((where / "hypervisor/per_cpu").iterdir())) == 4
    assert len(servers_of(where)) == 1
    assert run("umount", str(where)).returncode == 0
    until(lambda: not servers_of(where), "the server to end")


def test_the_source_and_the_type_show_in_the_mount_table(where: Path) -> None:
    run(*COMMAND, "model", str(where))
    [line] = [
        line
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        if str(where) in line
    ]
    assert line.startswith(f"model {where} fuse.hyptracefs ")


def test_the_name_in_the_mount_table_can_be_chosen(where: Path) -> None:
    assert run(*COMMAND, "model", str(where), "-ofsname=lab").returncode == 0
    mount = mount_at(str(where))
    assert mount is not None
    assert (mount.source, mount.fs_type) == ("lab", FS_TYPE)


@pytest.mark.parametrize("how", [[], ["-f"]])
def test_a_hypervisor_that_is_not_there_is_named(
    where: Path, tmp_path: Path, how: list[str]
) -> None:
    path = tmp_path / "none"
    done = run(*COMMAND, f"unix:{path}", str(where), *how)
    refused(
        done,
        1,
        f"hyptracefs: hypervisor at {path}: No such file or directory",
        "hyp-model --listen",
    )
    assert fstype(where) is None


@pytest.mark.parametrize("how", [[], ["-f"]])
@pytest.mark.parametrize("number", END_SIGNALS)
def test_a_signal_before_it_is_mounted_ends_it(
    where: Path, tmp_path: Path, how: list[str], number: signal.Signals
) -> None:
    """While a hypervisor is listened to that says nothing."""
    path = tmp_path / "hyp.sock"
    command = [*COMMAND, f"unix:{path}", str(where), *how]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            process.send_signal(number)
            said = process.communicate(timeout=PATIENCE_S)[1].splitlines()
            connection.close()
    assert process.returncode == 130
    assert said == ["hyptracefs: interrupted"]
    until(lambda: not servers_of(where), "the server to end")
    assert fstype(where) is None


def test_killed_before_it_has_said_that_it_is_mounted_it_is_not(
    where: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([*COMMAND, "model", str(where), f"-olog={log}"]) as process:
        until(lambda: servers_of(where), "the server to start")
        [server] = servers_of(where)
        os.kill(server, signal.SIGSTOP)
        process.kill()
    os.kill(server, signal.SIGCONT)
    until(lambda: not servers_of(where), "the server to end")
    assert fstype(where) is None
    assert "who asked for the mount has been killed" in log.read_text(encoding="utf-8")
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_in_the_background_it_logs_to_a_file(where: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(*COMMAND, "model", str(where), "-o", f"log={log}").returncode == 0
    run("umount", "-l", str(where))
    until(lambda: not servers_of(where), "the server to end")
    assert "ending" in log.read_text(encoding="utf-8")


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line that says what and what to do."""
    assert done.returncode == status, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("hyptracefs: ")
    for word in words:
        assert word in line


def mount_and_kill(where: Path) -> None:
    assert run(*COMMAND, "model", str(where)).returncode == 0
    [server] = servers_of(where)
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(server)], check=True)
    until(lambda: not servers_of(where), "the server to die")
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        where.stat()


def test_a_dead_mount_of_ours_is_removed_and_said(where: Path) -> None:
    mount_and_kill(where)
    done = run(*COMMAND, "model", str(where))
    assert done.returncode == 0
    assert "a dead mount of hyptracefs was there: removed" in done.stderr
    table = Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert table.count(f" {where} ") == 1
    assert (where / "tracing_on").is_file()


def test_a_dead_mount_is_removed_without_fusermount3(where: Path, tmp_path: Path) -> None:
    """Root needs none of what the package fuse3 has."""
    (tmp_path / "umount").symlink_to(shutil.which("umount") or "")
    mount_and_kill(where)
    done = run(*COMMAND, "model", str(where), env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert (where / "tracing_on").is_file()


def test_a_dead_mount_that_cannot_be_removed_is_said_with_its_remedy(
    where: Path, tmp_path: Path
) -> None:
    failing = tmp_path / "umount"
    failing.write_text("#!/bin/sh\nexit 32\n", encoding="ascii")
    failing.chmod(0o755)
    mount_and_kill(where)
    done = run(*COMMAND, "model", str(where), env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == 1
    assert f"{where} is a dead mount: remove it first, with: umount -l {where}" in done.stderr
    assert not servers_of(where)


def test_two_at_once_where_a_dead_mount_is_give_one_mount(where: Path) -> None:
    mount_and_kill(where)
    both = [
        subprocess.Popen([*COMMAND, "model", str(where)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        process.communicate(timeout=PATIENCE_S)
    assert sorted(process.returncode for process in both) == [0, 1]
    assert (where / "tracing_on").is_file()
    assert len(servers_of(where)) == 1


def test_a_dead_mount_of_another_kind_is_left_and_said_with_its_remedy(where: Path) -> None:
    script = "import sys, pyfuse3; pyfuse3.init(pyfuse3.Operations(), sys.argv[1], set())"
    subprocess.run([sys.executable, "-c", script, str(where)], check=True, timeout=PATIENCE_S)
    kind = fstype(where)
    assert kind not in (None, FS_TYPE)
    refused(run(*COMMAND, "model", str(where)), 1, "dead mount", f"umount -l {where}")
    assert fstype(where) == kind


def test_a_second_mount_at_the_same_place_is_refused(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        done = run(*COMMAND, "model", str(mount.path))
        refused(done, 1, "already", f"umount {mount.path}")


def test_two_at_once_at_the_same_place_give_one_mount(where: Path) -> None:
    both = [
        subprocess.Popen([*COMMAND, "model", str(where)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert sum("is a mount of hyptracefs already" in error for error in errors) == 1
    assert len(servers_of(where)) == 1


def test_a_log_that_cannot_be_opened(where: Path) -> None:
    done = run(*COMMAND, "model", str(where), "-o", "log=/nonexistent/log")
    refused(done, 1, "/nonexistent/log")
    assert fstype(where) is None


ODD = "a\rb \u00a0\x0b\u2028c\\040"


def test_odd_names_in_the_mount_table_are_no_obstacle(where: Path, tmp_path: Path) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    assert run("mount", "-t", "tmpfs", "none", str(odd)).returncode == 0
    try:
        assert run(*COMMAND, "model", str(where)).returncode == 0
        assert run("umount", "-l", str(where)).returncode == 0
        until(lambda: not servers_of(where), "the server to end")
    finally:
        assert run("umount", str(odd)).returncode == 0


def test_a_mountpoint_may_have_an_odd_name(tmp_path: Path) -> None:
    odd = tmp_path / ODD
    odd.mkdir()
    with mounted(odd) as mount:
        assert mount.is_mounted()
        assert mount.read("tracing_on") == "0\n"


def test_a_bind_mount_goes_with_the_mount(where: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "ours") as mount:
        assert run("mount", "--bind", str(mount.path), str(where)).returncode == 0
        mount.server.terminate()
        assert mount.wait_ended() == 0
        assert fstype(where) is None


def test_without_a_device(where: Path) -> None:
    script = 'mount -t tmpfs none /dev && exec "$@"'
    done = run("unshare", "-m", "bash", "-c", script, "-", *COMMAND, "model", str(where))
    refused(done, 1, "/dev/fuse does not exist", "modprobe fuse")


def test_without_permission(where: Path, tmp_path: Path) -> None:
    closed = tmp_path / "fuse"
    closed.touch(mode=0)
    script = f'mount --bind {closed} /dev/fuse && exec setpriv --bounding-set=-dac_override "$@"'
    done = run("unshare", "-m", "bash", "-c", script, "-", *COMMAND, "model", str(where))
    refused(done, 1, "/dev/fuse: permission denied")


def test_without_the_hook_it_says_so_and_does_not_stay(where: Path) -> None:
    """Pyfuse3 is there before the hook, so that its call goes past it."""
    script = "import sys, pyfuse3; from hyptracefs.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run(sys.executable, "-c", script, "model", str(where), "-f")
    refused(done, 1, "hook into libfuse is not in place")
    assert fstype(where) is None


def test_without_the_right_to_mount(where: Path) -> None:
    """Found out by the server: its parent tells."""
    done = run("setpriv", "--bounding-set=-sys_admin", *COMMAND, "model", str(where))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"hyptracefs: {where}: cannot be mounted")
    assert not servers_of(where)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-ocpus=0"], ["cpus=0", "1 to 1024"]),
        (["-oworkload=storm2"], ["storm2", "idle, replay"]),
        (["-onosuch"], ["nosuch", "there are"]),
    ],
)
@needs_launcher
def test_mount_reports_wrong_options(where: Path, options: list[str], words: list[str]) -> None:
    done = run("mount", "-t", "fuse.hyptracefs", "model", str(where), *options)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr
    assert fstype(where) is None
