"""`hyptrace record`: what is in the file, and what is left as it was."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyptrace.capture import PAGE_SIZE
from hyptrace.inputs import open_capture
from hyptrace.tracing import parse_statistics
from tests.mounts import PATIENCE_S, Line, Mount, can_mount, mounted, parse, until
from tests.tools import HYPTRACE, run

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]
needs_trace_cmd = pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="needs trace-cmd")

CPUS = 2


@pytest.fixture(scope="module")
def idle_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("idle"), "workload=idle", f"cpus={CPUS}") as mount:
        yield mount


@pytest.fixture(scope="module")
def busy_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    options = ("workload=guest", f"cpus={CPUS}")
    with mounted(tmp_path_factory.mktemp("busy"), *options) as mount:
        yield mount


def state(mount: Mount) -> tuple[str, ...]:
    """What a recording changes."""
    names = ("buffer_size_kb", "set_event", "tracing_on")
    return tuple((mount.path / name).read_text(encoding="ascii") for name in names)


@pytest.fixture
def idle(idle_mount: Mount) -> Iterator[Mount]:
    idle_mount.write("events/hypervisor/host_smc/enable", "1")
    before = state(idle_mount)
    assert before == ("7 (unloaded)\n", "hypervisor:host_smc\n", "0\n")
    yield idle_mount
    assert state(idle_mount) == before


@pytest.fixture
def busy(busy_mount: Mount) -> Iterator[Mount]:
    before = state(busy_mount)
    assert before == ("7 (unloaded)\n", "", "0\n")
    yield busy_mount
    assert state(busy_mount) == before


class Recorded:
    """What became of a recording in a directory of its own."""

    def __init__(self, mount: Mount, where: Path) -> None:
        self.dat = where / "trace.dat"
        self.command = [*HYPTRACE, "record", "--mount", str(mount.path), "-o", str(self.dat)]

    def __call__(self, *words: str, status: int = 0) -> list[str]:
        """Lines of stderr."""
        done = run(*self.command, *words)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        return done.stderr.splitlines()

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A recording in the background, gone afterwards."""
        command = [*self.command, *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            except BaseException:
                process.send_signal(signal.SIGABRT)  # faulthandler writes where it is
                print(process.communicate(timeout=PATIENCE_S)[1])  # noqa: T201
                raise
            finally:
                process.kill()

    def lines(self) -> list[Line]:
        """All of its events."""
        done = run(*HYPTRACE, "report", str(self.dat))
        assert (done.returncode, done.stderr) == (0, "")
        return parse("".join(re.findall(r"^\[.*\n", done.stdout, re.MULTILINE)))

    def left(self) -> list[str]:
        """The files that there are."""
        return sorted(path.name for path in self.dat.parent.glob("trace.dat*"))


def counted(lines: list[str]) -> dict[int, tuple[int, int]]:
    """By CPU, how many events it had and how many it lost, as said at the end."""
    found = [re.fullmatch(r"CPU (\d+): (\d+) events, (\d+) lost", line) for line in lines]
    return {int(m[1]): (int(m[2]), int(m[3])) for m in found if m}


def emit(mount: Mount, count: int) -> str:
    """A script that emits selftest events, 1 to `count` as their ids."""
    return f"for i in $(seq {count}); do : >{mount.top}/selftest_event; done"


def readers(mount: Mount) -> int:
    return int(parse_statistics(mount.read("statistics"))["host"]["readers"])


def until_recording(mount: Mount) -> None:
    """All pipes are open, and it traces."""
    until(lambda: readers(mount) >= CPUS and mount.read("tracing_on") == "1\n", "recording")


# --- what is in it --------------------------------------------------------------------------


def test_each_event_is_in_it_once(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    said = counted(recorded("-e", "selftest", "--", "sh", "-c", emit(idle, 100)))
    lines = recorded.lines()
    ids = sorted(int(line.text.removeprefix("id=")) for line in lines)
    assert ids == list(range(ids[0], ids[0] + 100))
    by_cpu = [sum(line.cpu == cpu for line in lines) for cpu in range(CPUS)]
    assert said == {cpu: (nr, 0) for cpu, nr in enumerate(by_cpu)}
    assert recorded.left() == ["trace.dat"]


def test_few_events_a_time_do_not_take_a_page_each_time(idle: Mount, tmp_path: Path) -> None:
    """And those before and after a pause that takes a time extend are as they were."""
    recorded = Recorded(idle, tmp_path)
    script = f"{emit(idle, 100)}; sleep 0.2; {emit(idle, 20)}"
    recorded("-b", "64", "-e", "selftest", "--", "sh", "-c", script)
    lines = recorded.lines()
    ids = sorted(int(line.text.removeprefix("id=")) for line in lines)
    assert ids == list(range(ids[0], ids[0] + 120))
    times = [line.usec for line in lines]
    assert times == sorted(times)
    assert times[-1] - times[0] > 200_000
    assert open_capture(recorded.dat).size <= CPUS * 2 * PAGE_SIZE


@needs_trace_cmd
def test_trace_cmd_reads_the_same(busy: Mount, tmp_path: Path) -> None:
    recorded = Recorded(busy, tmp_path)
    # hyp_printk has texts of its own, which trace-cmd cannot know.
    recorded("-b", "1024", "-e", "hyp_e*", "-e", "host_*", "sleep", "0.3")
    own = [(line.cpu, line.event, line.text) for line in recorded.lines()]
    report = run("trace-cmd", "report", "-i", str(recorded.dat)).stdout
    found = re.findall(r"\[(\d+)\] +(\d+)\.(\d{6}): (\w+): +(.*)", report)
    assert [(int(m[0]), m[3], m[4]) for m in found] == own
    assert len(own) > 10
    for line, match in zip(recorded.lines(), found, strict=True):
        assert 0 <= int(match[1] + match[2]) - line.usec <= 1  # it rounds


def test_more_than_the_buffer_holds(busy: Mount, tmp_path: Path) -> None:
    recorded = Recorded(busy, tmp_path)
    said = counted(recorded("-b", "64", "sleep", "1"))
    assert sum(events for events, _ in said.values()) == len(recorded.lines())
    assert recorded.dat.stat().st_size > 2 * 64 * 1024


def test_it_says_what_it_wrote_and_what_helps_against_losses(busy: Mount, tmp_path: Path) -> None:
    *_, last = Recorded(busy, tmp_path)("-b", "1024", "sleep", "0.2")
    assert re.fullmatch(rf"{tmp_path}/trace.dat: \d+ bytes of pages", last)
    with mounted(tmp_path / "storm", "workload=storm:10000000", f"cpus={CPUS}") as storm:
        *_, last = said = Recorded(storm, tmp_path)("--force", "-b", "4", "sleep", "0.5")
    numbers = counted(said).values()
    assert sum(lost for _, lost in numbers) > sum(events for events, _ in numbers)
    assert last.endswith("most of the events were lost: a larger buffer than 4 (-b KB) keeps more")


def test_only_these_cpus(busy: Mount, tmp_path: Path) -> None:
    recorded = Recorded(busy, tmp_path)
    assert list(counted(recorded("--cpu", "1", "sleep", "0.2"))) == [1]
    assert {line.cpu for line in recorded.lines()} == {1}


def test_only_these_events(busy: Mount, tmp_path: Path) -> None:
    recorded = Recorded(busy, tmp_path)
    recorded("-e", "hyp_ex*", "-e", "host_hcall", "sleep", "0.2")
    assert {line.event for line in recorded.lines()} == {"hyp_exit", "host_hcall"}


def test_without_a_choice_what_is_on(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    recorded("sh", "-c", f"cat {idle.path}/set_event >{tmp_path}/on")
    assert (tmp_path / "on").read_text() == "hypervisor:host_smc\n"


def test_what_was_before_is_not_in_it(idle: Mount, tmp_path: Path) -> None:
    """And tracing goes on afterwards as it did."""
    idle.write("events/hypervisor/selftest/enable", "1")
    idle.write("tracing_on", "1")
    subprocess.run(["sh", "-c", emit(idle, 3)], check=True)
    recorded = Recorded(idle, tmp_path)
    recorded("-e", "selftest", "sh", "-c", emit(idle, 2))
    assert len(recorded.lines()) == 2
    assert state(idle)[1:] == ("hypervisor:host_smc\nhypervisor:selftest\n", "1\n")
    idle.write("tracing_on", "0")
    idle.write("trace", "")
    idle.write("events/hypervisor/selftest/enable", "0")


# --- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9)]
)
def test_the_status_is_that_of_the_command(
    idle: Mount, tmp_path: Path, script: str, status: int
) -> None:
    Recorded(idle, tmp_path)("sh", "-c", script, status=status)


@pytest.mark.parametrize(("program", "status"), [("nosuch-command", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_run(idle: Mount, tmp_path: Path, program: str, status: int) -> None:
    recorded = Recorded(idle, tmp_path)
    [line] = recorded(program, status=status)
    assert line.startswith(f"hyptrace: {program}: ")
    assert recorded.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(busy: Mount, tmp_path: Path, number: int) -> None:
    recorded = Recorded(busy, tmp_path)
    with recorded.running() as process:
        until_recording(busy)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert sum(nr for nr, _ in counted(said.splitlines()).values()) == len(recorded.lines())


def test_the_command_gets_the_signal_and_ends_when_it_wants(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    last_words = f"trap ': >{idle.top}/selftest_event; exit 5' TERM"
    script = f"{last_words}; : >{tmp_path}/ready; for i in $(seq 2000); do sleep 0.01; done"
    with recorded.running("-e", "selftest", "sh", "-c", script) as process:
        until((tmp_path / "ready").exists, "the command to run")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 5
    assert len(recorded.lines()) == 1


def test_a_second_signal_does_not_wait_for_the_command(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    script = f"trap 'echo >>{tmp_path}/got' TERM; : >{tmp_path}/got; "
    script += f"for i in $(seq 2000); do [ ! -e {tmp_path}/end ] || exit; sleep 0.01; done"
    with recorded.running("sh", "-c", script) as process:
        until((tmp_path / "got").exists, "the command to run")
        process.send_signal(signal.SIGTERM)
        until(lambda: (tmp_path / "got").read_text() == "\n", "the first signal to arrive")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE_S)
        (tmp_path / "end").touch()
    assert process.returncode == 128 + signal.SIGTERM
    assert recorded.left() == ["trace.dat"]


def test_a_mount_that_dies(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=guest", f"cpus={CPUS}") as mount:
        recorded = Recorded(mount, tmp_path)
        spools = [tmp_path / f"trace.dat.cpu{cpu}" for cpu in range(CPUS)]
        with recorded.running() as process:
            until_recording(mount)
            until(lambda: all(path.stat().st_size for path in spools), "pages")
            mount.die()
            _, said = process.communicate(timeout=PATIENCE_S)
    [line] = said.splitlines()
    assert process.returncode == 1
    assert "the mount has died" in line
    assert len(recorded.lines()) > 1
    assert recorded.left() == ["trace.dat"]


@contextlib.contextmanager
def hanging(mount: Mount) -> Iterator[None]:
    """Its server does not answer. (Afterwards it has read, and thrown away, what was asked.)"""
    mount.server.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, mount.server.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        mount.server.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mount_that_hangs(tmp_path: Path, number: int) -> None:
    with mounted(tmp_path, "workload=guest", f"cpus={CPUS}") as mount:
        recorded = Recorded(mount, tmp_path)
        spools = [tmp_path / f"trace.dat.cpu{cpu}" for cpu in range(CPUS)]
        with recorded.running() as process:
            until_recording(mount)
            until(lambda: all(path.stat().st_size for path in spools), "pages")
            with hanging(mount):
                process.send_signal(number)
                _, said = process.communicate(timeout=PATIENCE_S)
                assert len(recorded.lines()) > 1
                assert recorded.left() == ["trace.dat"]
        [line] = said.splitlines()
        assert process.returncode == 1
        assert "the mount does not answer" in line
        assert re.search(r"; the [1-9]\d* bytes of pages before are in ", line)
        until(lambda: readers(mount) == 0, "the pipes to be closed")


def test_a_mount_that_hangs_when_the_command_ends(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=guest", f"cpus={CPUS}") as mount:
        recorded = Recorded(mount, tmp_path)
        script = f": >{tmp_path}/ready; until [ -e {tmp_path}/end ]; do sleep 0.01; done; exit 7"
        with recorded.running("sh", "-c", script) as process:
            until((tmp_path / "ready").exists, "the command to run")
            with hanging(mount):
                (tmp_path / "end").touch()
                _, said = process.communicate(timeout=PATIENCE_S)
        assert "the mount does not answer" in said
        assert process.returncode in {1, 7}  # 1: nothing had been captured yet


def test_a_mount_that_hangs_from_the_beginning(tmp_path: Path) -> None:
    with mounted(tmp_path, "workload=idle", f"cpus={CPUS}") as mount:
        recorded = Recorded(mount, tmp_path)
        with hanging(mount):
            [line] = recorded("true", status=1)
        assert "the mount does not answer" in line
        assert recorded.left() == []


def test_who_records_is_killed(busy: Mount, tmp_path: Path) -> None:
    """By name, or by the out-of-memory killer: the pages are kept."""
    recorded = Recorded(busy, tmp_path)
    before = state(busy)
    with recorded.running() as process:
        until_recording(busy)
        until(lambda: all(path.stat().st_size for path in tmp_path.glob("*.cpu*")), "pages")
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "who recorded was killed" in said
    assert len(recorded.lines()) > 1
    assert state(busy) != before
    put_back(busy)


def put_back(mount: Mount) -> None:
    until(lambda: readers(mount) == 0, "the pipes to be closed")
    mount.write("tracing_on", "0")
    mount.write("trace", "")
    mount.write("events/enable", "0")


def test_what_waits_is_killed(busy: Mount, tmp_path: Path) -> None:
    """Who records ends by itself, and puts everything back."""
    recorded = Recorded(busy, tmp_path)
    before = state(busy)
    with recorded.running() as process:
        until_recording(busy)
        process.kill()
        process.wait(timeout=PATIENCE_S)
    until(lambda: readers(busy) == 0 and state(busy) == before, "all to be put back")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", where], check=True)
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk_keeps_what_was_before(tmp_path: Path, small_disk: Path) -> None:
    with mounted(tmp_path, "workload=storm:100000", f"cpus={CPUS}") as mount:
        recorded = Recorded(mount, small_disk)
        before = state(mount)
        [line] = recorded("-b", "1024", status=1)
        assert state(mount) == before
    assert "No space left on device" in line
    kept = re.search(r"the (\d+) bytes of pages before are in ", line)
    assert kept is not None
    assert int(kept[1]) > 500_000
    assert len(recorded.lines()) > 10_000
    assert recorded.left() == ["trace.dat"]


def test_progress_where_somebody_sees_it(busy: Mount, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    recorded = Recorded(busy, tmp_path)
    process = subprocess.Popen([*recorded.command, "sleep", "0.2"], stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # nobody has the other end any more
        pass
    os.close(ours)
    assert process.wait(timeout=PATIENCE_S) == 0
    assert re.search(rb"\r\d+ s  \d+ events  \d+\.\d MB  lost ", seen)
    assert seen.rpartition(b"\r\x1b[K")[2].startswith(b"CPU 0: ")


# --- when it cannot ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["-e", "nonsense"], 2, "-e nonsense matches no event; there are: host_ffa_call, "),
        (["--cpu", "0,2"], 2, "there is no CPU 2; the last is 1"),
        (["--cpu", "x"], 2, "'x' is no list of CPUs"),
        (["-b", "0"], 2, "'-b'"),
        (["--mount", "/etc"], 1, "/etc is no mount of hyptracefs"),
        (["-o", "/nonexistent/x"], 1, "/nonexistent/x: No such file"),
    ],
)
def test_wrong_usage(idle: Mount, tmp_path: Path, words: list[str], status: int, why: str) -> None:
    recorded = Recorded(idle, tmp_path)
    [line] = recorded(*words, "true", status=status)
    assert why in line
    assert recorded.left() == []


def test_what_exists_is_kept(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    recorded.dat.write_text("mine")
    [line] = recorded("true", status=1)
    assert line.endswith("trace.dat: exists; --force overwrites it")
    assert recorded.dat.read_text() == "mine"
    recorded("--force", "true")
    assert recorded.dat.read_bytes()[:3] == b"\x17\x08D"


def test_who_can_answer_is_asked(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    recorded.dat.write_text("mine")
    ours, theirs = pty.openpty()
    command = [*recorded.command, "true"]
    process = subprocess.Popen(command, stdin=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    assert b"Overwrite it? [y/N]" in os.read(ours, 4096)
    os.write(ours, b"n\n")
    assert process.wait(timeout=PATIENCE_S) == 130
    os.close(ours)
    assert recorded.dat.read_text() == "mine"


def test_a_size_while_others_read(idle: Mount, tmp_path: Path) -> None:
    recorded = Recorded(idle, tmp_path)
    reader = idle.blocked_cat("trace_pipe")
    try:
        [line] = recorded("-b", "64", "true", status=1)
    finally:
        reader.kill()
        reader.wait()
    assert "others have a pipe open" in line
    assert recorded.left() == []
