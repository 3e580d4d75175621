"""Started by systemd, and the ends that docs/ends.md lists and no other test has."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from hyptracefs.daemon import systemd_notifier
from tests.mounts import PATIENCE_S, can_mount, mounted, until

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
