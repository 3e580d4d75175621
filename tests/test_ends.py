"""Started by systemd, and the ends that docs/ends.md lists and no other test has."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hyptracefs import daemon
from hyptracefs.daemon import log_handler, systemd_notifier
from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until

ROOT = Path(__file__).parents[1]

needs_mount = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    made.bind(str(tmp_path / "notify"))
    return made


def test_the_manager_is_told_and_children_do_not_know_of_it(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    tell = systemd_notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    tell("READY=1")
    assert manager.recv(100) == b"READY=1"
    manager.close()


def test_a_manager_in_the_abstract_name_space(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel finds a name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + manager.getsockname()[1:].decode())
        systemd_notifier()("READY=1")
        assert manager.recv(100, socket.MSG_DONTWAIT) == b"READY=1"


def test_no_manager_and_one_that_is_gone_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd_notifier()("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    systemd_notifier()("READY=1")


_SAY = (
    "import logging, sys; from hyptracefs.daemon import set_up_log; "
    "set_up_log(logging.INFO, logging.StreamHandler()); "
    "logging.warning('one\\ntwo'); logging.info('three')"
)


def _said(stream: str) -> list[str]:
    """What is logged to a stderr, of which the environment says that the journal is at `stream`."""
    with tempfile.TemporaryFile() as stderr:
        status = os.fstat(stderr.fileno())
        where = stream.format(f"{status.st_dev}:{status.st_ino}")
        subprocess.run(
            [sys.executable, "-c", _SAY],
            check=True,
            stderr=stderr,
            env={**os.environ, "JOURNAL_STREAM": where},
        )
        stderr.seek(0)
        return [
            re.sub(r"hyptracefs\[\d+\]: ", "", line) for line in stderr.read().decode().split("\n")
        ]


def test_the_journal_is_told_the_level_of_each_line() -> None:
    assert _said("{}") == ["<4>WARNING: one", "<4>two", "<6>INFO: three", ""]


@pytest.mark.parametrize("stream", ["", "1:2"])
def test_others_are_not(stream: str) -> None:
    assert _said(stream) == ["WARNING: one", "two", "INFO: three", ""]


def test_in_the_background_messages_go_to_syslog_if_there_is_one(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens as the manager does."""
    monkeypatch.setattr(daemon, "_SYSLOG", Path(manager.getsockname()))
    handler = log_handler(None)
    handler.handle(logging.makeLogRecord({"msg": "it is gone", "levelno": logging.ERROR}))
    assert b"it is gone" in manager.recv(100, socket.MSG_DONTWAIT)
    handler.close()
    manager.close()
    monkeypatch.setattr(daemon, "_SYSLOG", tmp_path / "none")
    assert isinstance(log_handler(None), logging.NullHandler)


# Interrupts who has started it, and is then too busy to say that it is to end.
_INTERRUPTS = """\
#!/bin/sh
until grep -q pipe /proc/$PPID/wchan; do sleep 0.01; done
kill -INT $PPID
exec sleep 1000
"""


def test_a_server_that_ends_in_silence_is_no_reason_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(_INTERRUPTS, encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(KeyboardInterrupt):
        daemon.start(["model", "/nosuch"])


def _exec_lines() -> list[str]:
    unit = ROOT / "docs/systemd/hyptracefs.service"
    lines = unit.read_text(encoding="ascii").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith("Exec")]


@pytest.mark.mount
@needs_mount
def test_the_service_starts_again_where_it_was_killed(tmp_path: Path) -> None:
    """Its commands, as systemd runs them, over the dead mount that the one before has left."""
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        mount.server.kill()
        mount.server.wait()
        prepare, start = (line.replace("/mnt/hyp", str(mount.path)) for line in _exec_lines())
        done = subprocess.run(prepare.removeprefix("-").split(), check=False, capture_output=True)
        assert done.returncode == 0 or prepare.startswith("-")
        command = [sys.executable, "-m", "hyptracefs", *start.split()[1:]]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(lambda: _shows_tracing_on(mount), "it to be mounted again")
            server.terminate()
            assert server.wait(timeout=PATIENCE_S) == 0
        finally:
            server.kill()
            server.wait()
        mount.server.returncode = 0  # as it was meant


def _shows_tracing_on(mount: Mount) -> bool:
    try:
        return mount.read("tracing_on") == "0\n"
    except OSError:
        return False


@pytest.mark.mount
@needs_mount
def test_ready_is_said_when_it_is_mounted(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    with mounted(tmp_path / "m", "cpus=2,workload=idle") as mount:
        said = manager.recv(1000).decode().splitlines()
        assert said == ["READY=1", f"STATUS=mounted at {mount.path}"]
        assert mount.read("tracing_on") == "0\n"
    manager.close()


@pytest.mark.mount
@needs_mount
def test_fusermount_ends_the_server(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        subprocess.run(["fusermount3", "-u", str(mount.path)], check=True)
        assert mount.wait_ended() == 0
        assert not mount.is_mounted()


@pytest.mark.mount
@needs_mount
def test_ended_below_another_mount_it_says_that_it_stays(tmp_path: Path) -> None:
    """What is mounted over it is somebody else's, and in the way."""
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        subprocess.run(["mount", "-t", "tmpfs", "none", str(mount.path)], check=True)
        try:
            mount.server.terminate()
            assert mount.wait_ended() == 0
            assert "something is mounted over our mount: it stays, dead" in mount.log()
        finally:
            subprocess.run(["umount", str(mount.path)], check=True)
        assert mount.is_mounted()
        subprocess.run(["umount", "-l", str(mount.path)], check=True)


@pytest.mark.mount
@needs_mount
def test_killed_it_is_unmounted_where_that_was_asked_for(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle,auto_unmount") as mount:
        mount.server.kill()
        mount.server.wait()
        until(lambda: not mount.is_mounted(), "fusermount3 to unmount it")
        mount.server.returncode = 0  # as it was meant


@pytest.mark.mount
@needs_mount
def test_killed_it_ends_its_readers_and_its_model_and_leaves_a_dead_mount(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=idle") as mount:
        model = mount.model()
        reader = mount.blocked_cat("trace_pipe")
        mount.server.send_signal(signal.SIGKILL)
        assert mount.wait_ended() == -signal.SIGKILL
        assert reader.wait(timeout=PATIENCE_S) == 1
        until(lambda: not Path(f"/proc/{model}").exists(), "the model to end")
        assert mount.is_mounted()
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            mount.path.stat()
        mount.die()


def _in_group(mount_top: Path, uid: int, gid: int, name: str) -> int:
    command = ["cat", str(mount_top / name)]
    return subprocess.run(
        command, user=uid, group=gid, extra_groups=[], check=False, capture_output=True, cwd="/"
    ).returncode


@pytest.mark.mount
@needs_mount
def test_a_group_gets_what_a_tracefs_would_give_it(open_directory: Path) -> None:
    group, nobody = 1234, 65534
    with mounted(open_directory / "m", f"allow_other,gid={group},mode=750,workload=idle") as mount:
        assert _in_group(mount.top, nobody, group, "tracing_on") == 0
        assert _in_group(mount.top, nobody, group, "events/hypervisor/hyp_enter/format") == 0
        assert _in_group(mount.top, nobody, nobody, "tracing_on") == 1
        write = ["sh", "-c", f"echo 1 > {mount.top}/tracing_on"]
        done = subprocess.run(
            write, user=nobody, group=group, extra_groups=[], check=False, capture_output=True,
            cwd="/",
        )  # fmt: skip
        assert done.returncode != 0
        assert mount.read("tracing_on") == "0\n"


@pytest.mark.mount
@needs_mount
def test_by_default_nobody_else_looks_in_whatever_the_modes_are(open_directory: Path) -> None:
    with mounted(open_directory / "m", "mode=755,gid=1234,workload=idle") as mount:
        assert _in_group(mount.top, 65534, 1234, "tracing_on") == 1
        assert _in_group(mount.top, 0, 0, "tracing_on") == 0
