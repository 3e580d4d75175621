"""`hyptrace status`, and `hyptrace top -b`, of mounts that live, are dead, or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until
from tests.tools import HYPTRACE, run

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]

CPUS = 2


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("mount"), "workload=guest", f"cpus={CPUS}") as mount:
        yield mount


def status(*words: str) -> Any:
    done = run(*HYPTRACE, "status", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_one_that_does_nothing(mount: Mount) -> None:
    [said] = status("--mount", str(mount.path))
    assert said["mountpoint"] == str(mount.path)
    assert (said["source"], said["state"], said["cpus"]) == ("model", "alive", CPUS)
    assert (said["loaded"], said["tracing_on"], said["readers"]) == (False, False, 0)
    assert (said["buffer_size_kb"], said["events"], said["also_at"]) == (7, [], [])
    assert said["hypervisor"]["state"] == "present"


def test_one_that_traces(mount: Mount) -> None:
    mount.trace()
    reader = mount.cat("trace_pipe")
    try:
        until(lambda: status("--mount", str(mount.path))[0]["readers"] == 1, "the reader")
        [said] = status("--mount", str(mount.path))
        text = run(*HYPTRACE, "status", "--mount", str(mount.path)).stdout
    finally:
        reader.kill()
        reader.wait()
        mount.write("tracing_on", "0")
        mount.write("trace", "")
        mount.write("events/enable", "0")
        mount.write("buffer_size_kb", "7")
    assert (said["loaded"], said["tracing_on"], said["buffer_size_kb"]) == (True, True, 64)
    assert said["events"] == ["hypervisor:hyp_enter", "hypervisor:hyp_exit"]
    assert said["counters"]["host cpu1"]["entries"] > 0
    assert "64 KiB per CPU, loaded, tracing, 1 readers" in text
    assert "hypervisor:hyp_exit" in text


def test_a_bind_is_the_same_mount(mount: Mount, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", mount.path, tmp_path], check=True)
    try:
        [said] = status("--mount", str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (said["mountpoint"], said["also_at"]) == (str(mount.path), [str(tmp_path)])


def test_the_dead_and_those_that_hang_keep_nobody(mount: Mount, tmp_path: Path) -> None:
    with mounted(tmp_path / "1") as dead, mounted(tmp_path / "2") as hanging:
        dead.server.kill()
        dead.server.wait()
        hanging.server.send_signal(signal.SIGSTOP)
        try:
            states = {each["mountpoint"]: each["state"] for each in status()}
            text = run(*HYPTRACE, "status").stdout
        finally:
            hanging.server.send_signal(signal.SIGCONT)
        dead.die()
    assert states[str(dead.path)] == "dead"
    assert states[str(hanging.path)] == "hangs"
    assert states[str(mount.path)] == "alive"
    assert f"umount -l {dead.path}" in text


def test_none() -> None:
    script = (
        "for each in $(findmnt -n -r -o TARGET -t fuse.hyptracefs | tac); do umount -l $each; done"
    )
    command = f"{script}; {' '.join(HYPTRACE)} status; {' '.join(HYPTRACE)} status --json"
    done = run("unshare", "-m", "--propagation", "private", "sh", "-c", command)
    assert done.stdout.startswith("no hyptracefs is mounted here: ")
    assert done.stdout.endswith("[]\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_no_mount() -> None:
    done = run(*HYPTRACE, "status", "--mount", "/etc")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hyptrace: /etc is no mount of hyptracefs\n"


# --- top ---------------------------------------------------------------------------------------


def test_top_sees_and_consumes_nothing(mount: Mount) -> None:
    mount.trace(size_kb=1024)
    try:
        done = run(*HYPTRACE, "top", "--mount", str(mount.path), "-b", "-n", "2", "-d", "0.2")
        [said] = status("--mount", str(mount.path))
    finally:
        mount.write("tracing_on", "0")
        mount.write("trace", "")
        mount.write("events/enable", "0")
        mount.write("buffer_size_kb", "7")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [dict(word.split("=") for word in line.split()[1:]) for line in done.stdout.splitlines()]
    assert [row["tracing"] for row in rows if "tracing" in row] == ["on", "on"]
    assert [row["cpu"] for row in rows if "cpu" in row] == ["0", "1"] * 2
    assert all(int(row["events/s"]) > 0 for row in rows if row.get("event") == "hyp_exit")
    assert any("hvc" in row for row in rows)
    assert [said["counters"][f"host cpu{cpu}"]["read"] for cpu in range(CPUS)] == [0, 0]


def test_top_of_a_terminal_that_is_none(mount: Mount) -> None:
    done = run(*HYPTRACE, "top", "--mount", str(mount.path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "say -b for plain lines" in done.stderr


def test_top_of_a_mount_that_dies(tmp_path: Path) -> None:
    with mounted(tmp_path, f"cpus={CPUS}") as mount:
        command = [*HYPTRACE, "top", "--mount", str(mount.path), "-b", "-d", "0.1"]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipe) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            mount.server.kill()
            _, said = process.communicate(timeout=PATIENCE_S)
        mount.die()
    assert process.returncode == 1
    [line] = said.splitlines()
    assert line.startswith("hyptrace: ")
    assert os.strerror(107) in line  # ENOTCONN
