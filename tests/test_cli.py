"""The command line, as far as it refuses: status, one line on stderr, nothing mounted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hyptracefs import daemon, mount_table, mounts
from hyptracefs.cli import main
from hyptracefs.mounts import MountError, check_fuse, check_mounted, check_mountpoint
from hyptracefs.own_mount import OwnMount

_USAGE = 2
_FAILED = 1


@pytest.fixture(autouse=True)
def _our_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the process that runs the tests stays as it is."""
    monkeypatch.setattr(daemon, "set_up_log", lambda *_: None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "SOURCE, MOUNTPOINT"),
        (["model"], "MOUNTPOINT"),
        (["model", "/", "extra"], "extra"),
        (["model", "/", "--frob"], "--frob"),
        (["model", "/", "-o"], "-o"),
        (["model", "/", "-o", "nosuch"], "unknown option 'nosuch'"),
        (["model", "/", "-o", "cpus=0"], "cpus=0"),
        (["model", "/", "-o", "workload=nap"], "idle, replay"),
        (["model", "/", "-f", "-o", "cpus=2", "-o", "poll_ms=x"], "poll_ms=x"),
        (["kvm", "/"], "unknown source 'kvm': there is model"),
        (["", "/"], "unknown source ''"),
        (["model", "/", "--ready-fd", "x"], "--ready-fd"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_refused(arguments, _USAGE, said, capsys)


@pytest.mark.parametrize("how", [[], ["-f"], ["-d"], ["-o", "workload=idle"]])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuch", "does not exist: make it, with: mkdir -p "),
        ("file", "is not a directory"),
        ("file/below", "Not a directory: choose"),
        ("dangling", "does not exist"),
    ],
)
def test_wrong_mountpoint_is_status_1_and_one_line(
    how: list[str], name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    _check_refused(["model", str(tmp_path / name), *how], _FAILED, said, capsys)


def _check_refused(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(mount_table.mounts())
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("hyptracefs: ")
    assert said in line
    assert list(mount_table.mounts()) == before


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--help", "model"]])
def test_help_tells_options_sources_and_statuses(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: hyptracefs SOURCE MOUNTPOINT")
    for word in ("cpus=N", "workload=NAME", "poll_ms=MS", "log=FILE", "model", "exit status"):
        assert word in text
    assert "ready-fd" not in text


@pytest.mark.parametrize("argument", ["--version", "-V"])
def test_version_is_told(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([argument])
    assert raised.value.code == 0
    assert capsys.readouterr().out.strip().replace(".", "").isdigit()


def test_missing_fuse_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mounts, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(MountError, match="modprobe fuse"):
        check_fuse()
    _check_refused(["model", str(tmp_path)], _FAILED, "modprobe fuse", capsys)


def test_a_user_without_fusermount3_is_told_which_package_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device = tmp_path / "fuse"
    device.touch()
    monkeypatch.setattr(mounts, "FUSE_DEVICE", device)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError, match=r"fusermount3 not found: .* need the package fuse3"):
        check_fuse()
    (tmp_path / "fusermount3").touch(mode=0o755)
    check_fuse()


def test_a_mount_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=f"^{tmp_path}: mounted, but ended at once: run it with"):
        check_mounted(str(tmp_path))
    with pytest.raises(MountError, match=r"/nosuch: mounted, but does not answer: No such file"):
        check_mounted(f"{tmp_path}/nosuch")
    with pytest.raises(MountError, match=f"^{tmp_path}: mounted, but gone again"):
        OwnMount(str(tmp_path))


_MOUNTINFO = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "40 22 0:50 / {at}/a\\040b rw shared:2 master:1 - tmpfs tmpfs rw\n"
    "41 22 0:51 / {at}/a\\040b rw - fuse.hyptracefs model rw\n"
)


def test_mountpoint_that_is_one_already_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(_MOUNTINFO.format(at=tmp_path), encoding="utf-8")
    monkeypatch.setattr(mount_table, "MOUNTINFO", mountinfo)
    mountpoint = tmp_path / "a b"
    mountpoint.mkdir()
    expected = mount_table.Mount("0:51", str(mountpoint), "fuse.hyptracefs", "model")
    assert mount_table.mount_at(str(mountpoint)) == expected
    with pytest.raises(MountError, match=r"is a mount of hyptracefs already.*umount "):
        check_mountpoint(str(mountpoint))
    check_mountpoint(str(tmp_path))


def test_parent_of_a_daemon_does_without_trio_and_pyfuse3() -> None:
    """They are as long to import as all the rest."""
    program = "import sys, hyptracefs.cli; print({'trio', 'pyfuse3'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert printed.stdout == b"set()\n"
