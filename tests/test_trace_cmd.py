"""trace-cmd on a mount: each of its commands, as `hyptrace exec` runs it.

With Debian 12's trace-cmd 3.1.6; what is checked holds for the later ones too.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.decoder import Decoder, RawEvent, as_text
from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until
from tests.tools import TRACE_CMD, on, run

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
    pytest.mark.skipif(shutil.which(TRACE_CMD[0]) is None, reason="needs trace-cmd"),
]

CPUS = 3

_REPORTED = re.compile(
    r" *(?:hypervisor: +)?<idle>-0 +\[(\d{3})\](?: \.{5}|-0x0)? *(\d+)\.(\d{6,9}): (\w+): +(.*?) *"
)
_DROPPED = re.compile(r"CPU:\d+ \[(\d+ )?EVENTS DROPPED\]")


class Reported(NamedTuple):
    """A line of `trace-cmd report`."""

    cpu: int
    time: int  # ns
    event: str
    text: str

    @property
    def what(self) -> str:
        return f"{self.event} {self.text}"


def reported(text: str) -> list[Reported]:
    """Events of `trace-cmd report`; each line is one, or fails, but for the first and losses."""
    head, *lines = text.splitlines()
    assert head.startswith("cpus="), head
    events = []
    for line in lines:
        if _DROPPED.search(line):
            continue
        match = _REPORTED.fullmatch(line)
        assert match, line
        fraction = match[3].ljust(9, "0")
        stamp = int(match[2]) * 1_000_000_000 + int(fraction)
        events.append(Reported(int(match[1]), stamp, match[4], match[5]))
    return events


class TraceCmd:
    """Runs trace-cmd on `mount`, in `directory`."""

    def __init__(self, mount: Mount, directory: Path) -> None:
        self.mount = mount
        self.directory = directory

    def __call__(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(*on(self.mount.path, *TRACE_CMD, *words), cwd=self.directory)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done

    def says(self, *words: str) -> list[str]:
        """Lines that it prints."""
        return self(*words).stdout.splitlines()

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """In the background; killed if it has not ended by itself."""
        with subprocess.Popen(
            on(self.mount.path, *TRACE_CMD, *words),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its recorders are killed with it
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def report(self, *words: str) -> str:
        """No mount is needed for that."""
        done = run(*TRACE_CMD, "report", *words, cwd=self.directory)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def events(self, *words: str) -> list[Reported]:
        return reported(self.report("-t", *words))

    def read(self, name: str) -> str:
        return (self.mount.path / name).read_text(encoding="ascii")

    def write(self, name: str, text: str) -> None:
        (self.mount.path / name).write_text(text, encoding="ascii")

    def emit(self, count: int, cpu: int = 0) -> None:
        """`count` selftest events on `cpu`."""
        run("taskset", "-c", str(cpu), "sh", "-c", emission(count, self.mount.path))


def emission(count: int, tracing: Path | str = "/sys/kernel/tracing") -> str:
    """A shell script that makes `count` selftest events."""
    return f"for i in $(seq {count}); do : >{tracing}/hypervisor/selftest_event; done"


def rest(mount: Mount) -> None:
    """As it was mounted."""
    mount.write("tracing_on", "0")
    mount.write("events/enable", "0")
    mount.write("trace", "")
    mount.write("buffer_size_kb", "7")
    (mount.path / "trace_clock").write_text("mono", encoding="ascii")


@pytest.fixture(scope="module")
def idle_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("idle"), "workload=idle", f"cpus={CPUS}") as mount:
        yield mount


@pytest.fixture(scope="module")
def busy_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("busy"), "workload=guest", f"cpus={CPUS}") as mount:
        yield mount


@pytest.fixture
def idle(idle_mount: Mount, tmp_path: Path) -> TraceCmd:
    rest(idle_mount)
    return TraceCmd(idle_mount, tmp_path)


@pytest.fixture
def busy(busy_mount: Mount, tmp_path: Path) -> TraceCmd:
    rest(busy_mount)
    return TraceCmd(busy_mount, tmp_path)


# --- list ---------------------------------------------------------------------------------

EVENTS = ["hyp_enter", "hyp_exit", "selftest"]  # some of them


def test_list_events(idle: TraceCmd) -> None:
    names = idle.says("list", "-e")
    assert names == idle.read("available_events").splitlines()
    assert {f"hypervisor:{name}" for name in EVENTS} <= set(names)


def test_list_events_by_pattern(idle: TraceCmd) -> None:
    assert idle.says("list", "-e", "^hyp.*:hyp_e") == [
        "hypervisor:hyp_enter",
        "hypervisor:hyp_exit",
    ]
    assert idle.says("list", "-e", "nosuch") == []


def test_list_systems(idle: TraceCmd) -> None:
    assert sorted(filter(None, idle.says("list", "-s"))) == ["ftrace", "hypervisor"]


def test_list_formats(idle: TraceCmd) -> None:
    text = idle("list", "-F", "-e", "hyp_enter").stdout
    assert "system: hypervisor\nname: hyp_enter\n" in text
    assert "\tfield:u8 reason;\toffset:2;\tsize:1;\tsigned:0;\n" in text
    assert "print fmt" not in text


def test_list_formats_in_full(idle: TraceCmd) -> None:
    text = idle("list", "-F", "--full", "-e", "hyp_enter").stdout
    assert '__print_symbolic(REC->reason, { 0, "smc" }' in text


@pytest.mark.parametrize("option", ["-t", "-p"])
def test_list_tracers(idle: TraceCmd, option: str) -> None:
    assert idle.says("list", option) == ["nop"]


def test_list_options(idle: TraceCmd) -> None:
    assert idle.says("list", "-o") == sorted(os.listdir(idle.mount.path / "options"))  # noqa: PTH208


def test_list_clocks(idle: TraceCmd) -> None:
    assert idle.says("list", "-C") == ["local [mono] boot"]


def test_list_instances(idle: TraceCmd) -> None:
    assert idle.says("list", "-B") == ["hypervisor"]


def test_list_all(idle: TraceCmd) -> None:
    text = idle("list").stdout
    for words in ("event systems:\n", "tracers:\nnop\n", "hypervisor:hyp_enter\n"):
        assert words in text


def test_check_events(idle: TraceCmd) -> None:
    """Each format parses."""
    assert idle("check-events").stderr == ""


# --- switching, and looking ---------------------------------------------------------------


def test_start_stat_stop_restart(idle: TraceCmd) -> None:
    assert "All disabled" in idle("stat").stdout
    idle("start", "-e", "hypervisor", "-b", "64")
    text = idle("stat").stdout
    assert "Events:\n All enabled\n" in text
    assert "Buffer size in kilobytes (per cpu):\n   64 (loaded)\n" in text
    assert f"Buffer total size in kilobytes:\n   {CPUS * 64}\n" in text
    assert "Clock: mono\n" in text
    assert "Tracing is enabled\n" in text
    idle("stop")
    assert "Tracing is disabled\n" in idle("stat").stdout
    assert idle.read("tracing_on") == "0\n"
    idle("restart")
    assert idle.read("tracing_on") == "1\n"


def test_start_one_event(idle: TraceCmd) -> None:
    idle("start", "-e", "hypervisor:hyp_enter", "-e", "hyp_exit")
    assert idle.read("set_event").split() == ["hypervisor:hyp_enter", "hypervisor:hyp_exit"]
    text = idle("stat").stdout
    assert "Individual enabled events:" in text or "hyp_enter" in text


def test_start_with_a_clock(idle: TraceCmd) -> None:
    idle("start", "-e", "hypervisor", "-C", "boot")
    assert idle.read("trace_clock") == "local mono [boot]\n"


def test_set(idle: TraceCmd) -> None:
    idle("set", "-e", "hypervisor:selftest")
    assert idle.read("events/hypervisor/selftest/enable") == "1\n"
    assert idle.read("tracing_on") == "0\n"


def test_set_runs_a_command(idle: TraceCmd) -> None:
    idle("start", "-e", "selftest")
    idle("set", "sh", "-c", emission(3))
    idle("stop")
    assert read_pipe(idle).count("selftest") == 3


def test_reset_switches_all_off(idle: TraceCmd) -> None:
    idle("start", "-e", "hypervisor", "-C", "boot", "-b", "64")
    idle.emit(3)
    idle("reset")
    assert idle.read("events/enable") == "0\n"
    assert idle.read("trace_clock") == "[local] mono boot\n"
    idle("stop")
    assert read_pipe(idle) == ""


def test_clear_forgets_the_events(idle: TraceCmd) -> None:
    idle.write("events/hypervisor/selftest/enable", "1")
    idle.write("tracing_on", "1")
    idle.emit(3)
    idle("clear")
    idle.emit(1)
    idle("stop")
    assert read_pipe(idle).count("selftest") == 1


def read_pipe(tool: TraceCmd) -> str:
    """What trace_pipe has now."""
    descriptor = os.open(tool.mount.path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    parts = []
    try:
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("ascii")


def until_events(tool: TraceCmd) -> None:
    """Wait until each CPU has events for who records them."""
    until(lambda: tool.read("tracing_on") == "1\n", "tracing to begin")
    for raw in tool.mount.path.glob("per_cpu/cpu*/trace_pipe_raw"):
        with raw.open("rb", buffering=0) as pipe:
            assert select.select([pipe], [], [], PATIENCE_S)[0]


def until_recorders_wait(process: subprocess.Popen[str], cpus: int = CPUS) -> list[int]:
    """Until its processes, one for each CPU, read; a signal before that finds nothing."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def reads(pid: str) -> bool:
        return any(
            "trace_pipe_raw" in str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()
        )

    def all_read() -> bool:
        pids = children.read_text(encoding="ascii").split()
        return len(pids) == cpus and all(map(reads, pids))

    until(all_read, "recorders to read")
    return list(map(int, children.read_text(encoding="ascii").split()))


def traced(tool: TraceCmd, count: int, cpu: int = 0) -> None:
    """`count` selftest events are in the buffer, and tracing is off."""
    tool.write("buffer_size_kb", "64")
    tool.write("events/hypervisor/selftest/enable", "1")
    tool.write("tracing_on", "1")
    tool.emit(count, cpu)
    tool.write("tracing_on", "0")


def test_show(idle: TraceCmd) -> None:
    traced(idle, 3, cpu=1)
    text = idle("show").stdout
    assert text.count("selftest id=") == 3
    assert idle("show", "-c", "1").stdout.count("selftest id=") == 3
    assert idle("show", "-c", "0").stdout.count("selftest id=") == 0
    assert read_pipe(idle).count("selftest") == 3  # still there


def test_show_pipe(busy: TraceCmd) -> None:
    busy.write("buffer_size_kb", "1024")
    busy.write("events/enable", "1")
    busy.write("tracing_on", "1")
    with busy.running("show", "-p") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert all(re.match(r"\[\d{3}\]\t *\d+\.\d{6}: \w+ ", line) for line in lines)


def test_snapshot_and_stack_are_not_there_and_say_so(idle: TraceCmd) -> None:
    assert "not supported" in idle("snapshot", status=2).stderr


# --- record -------------------------------------------------------------------------------


def ids(events: Iterable[Reported]) -> list[int]:
    """Of selftest events."""
    return [int(event.text.removeprefix("id=")) for event in events if event.event == "selftest"]


def are_consecutive(numbers: list[int], count: int) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + count))


def _version() -> tuple[int, ...]:
    """Of trace-cmd."""
    done = subprocess.run([*TRACE_CMD, "--version"], check=False, capture_output=True)
    match = re.search(rb"version (\d+)\.(\d+)", done.stdout + done.stderr)
    return tuple(map(int, match.groups())) if match else ()


# Its recorders end at the first EAGAIN of a splice, which a kernel gives them too.
_POLL = pytest.param(
    ["--poll"],
    marks=pytest.mark.xfail(_version() < (3, 3), reason="gives up when a CPU has no events"),
)

RECORDINGS = {
    "default": [],
    "-b": ["-b", "64"],
    "-C local": ["-C", "local"],
    "-B hypervisor": ["-B", "hypervisor"],
    "--poll": _POLL,
    "-s 1000": ["-s", "1000"],
    "-m": ["-m", "1000"],
}


@pytest.mark.parametrize("options", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_record_a_command(idle: TraceCmd, options: list[str]) -> None:
    """Each event once, with its fields, its CPU and its time."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    idle(
        "record", *options, "-e", "hypervisor:selftest",
        "taskset", "-c", "1", "sh", "-c", emission(100),
    )  # fmt: skip
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    events = idle.events()
    assert {(event.cpu, event.event) for event in events} == {(1, "selftest")}
    assert are_consecutive(ids(events), 100)
    times = [event.time for event in events]
    assert times == sorted(times)
    slack = 1_000_000_000  # of the clocks: what would be wrong is another clock
    assert before - slack < times[0] <= times[-1] < after + slack


def test_record_leaves_all_as_it_was(idle: TraceCmd) -> None:
    idle("record", "-b", "64", "-C", "boot", "-e", "hypervisor", "true")
    assert idle.read("tracing_on") == "0\n"
    assert idle.read("events/enable") == "0\n"
    assert idle.read("trace_clock") == "local [mono] boot\n"
    # 3.1 leaves the size as it was asked to make it.
    assert idle.read("buffer_size_kb") in ("64 (unloaded)\n", "7 (unloaded)\n")
    assert idle.read("instances/hypervisor/tracing_on") == "0\n"


def test_record_all_events(busy: TraceCmd) -> None:
    busy("record", "-b", "4096", "-e", "hypervisor", "sleep", "0.5")
    events = busy.events()
    assert {event.cpu for event in events} == set(range(CPUS))
    kinds = Counter(event.event for event in events)
    for name in ("hyp_enter", "hyp_exit", "host_hcall", "host_mem_abort", "host_smc"):
        assert kinds[name]
    for cpu in range(CPUS):
        times = [event.time for event in events if event.cpu == cpu]
        assert times == sorted(times)


def test_record_more_than_the_buffer_holds(busy: TraceCmd) -> None:
    """It reads while it records."""
    busy("record", "-b", "16", "-e", "hypervisor", "sleep", "2")
    for cpu in range(CPUS):
        of_cpu = (event for event in busy.events("--cpu", str(cpu)))
        size = 16 * 1024 // 24  # at the most: each has a header, an id, and fields
        assert sum(1 for _ in of_cpu) > 2 * size


def test_record_until_interrupted(busy: TraceCmd) -> None:
    with busy.running("record", "-b", "1024", "-e", "hypervisor") as process:
        until_recorders_wait(process)
        until_events(busy)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert busy.events()
    assert busy.read("tracing_on") == "0\n"


def test_record_with_a_filter(busy: TraceCmd) -> None:
    busy(
        "record", "-b", "4096", "-e", "hypervisor:hyp_enter", "-f", "reason == 1",
        "-e", "hypervisor:hyp_exit", "sleep", "0.5",
    )  # fmt: skip
    events = busy.events()
    assert {event.text.split()[0] for event in events if event.event == "hyp_enter"} == {
        "reason=hvc"
    }
    assert len({event.text.split()[0] for event in events if event.event == "hyp_exit"}) > 1


def test_record_says_that_nothing_was_lost(idle: TraceCmd) -> None:
    done = idle("record", "-b", "64", "-e", "selftest", "sh", "-c", emission(10))
    said = done.stdout + done.stderr
    assert re.findall(r"CPU (\d): (\d+) events lost", said) == []
    assert "no overrun found" not in said


def overrun(tool: TraceCmd, cpu: int) -> int:
    """Events that the hypervisor has ever written over, unread, by its own count."""
    pattern = rf"^hypervisor cpu{cpu} .* ever_overrun (\d+) "
    match = re.search(pattern, tool.read("hypervisor/statistics"), re.MULTILINE)
    assert match
    return int(match[1])


def test_record_tells_what_was_lost(idle: TraceCmd) -> None:
    """By recorders that stand still."""
    before = overrun(idle, 1)
    with idle.running("record", "-b", "8", "-e", "selftest") as process:
        recorders = until_recorders_wait(process)
        until(lambda: idle.read("tracing_on") == "1\n", "tracing to begin")
        for pid in recorders:
            os.kill(pid, signal.SIGSTOP)
        idle.emit(2000, cpu=1)
        lost = overrun(idle, 1) - before
        for pid in recorders:
            os.kill(pid, signal.SIGCONT)
        # One that has not begun ends without a look at what there is.
        until(lambda: "entries: 0\n" in idle.read("per_cpu/cpu1/stats"), "recorders to go on")
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=PATIENCE_S))
    assert process.returncode == 0
    assert 0 < lost < 2000
    assert re.findall(r"CPU (\d): (\d+) events lost", said) == [("1", str(lost))]
    assert overrun(idle, 1) - before == lost
    text = idle.report("-t")
    assert len(ids(reported(text))) == 2000 - lost
    assert _DROPPED.search(text)


def test_a_second_recording_is_a_second_one(idle: TraceCmd) -> None:
    for count in (5, 7):
        idle("record", "-e", "selftest", "sh", "-c", emission(count))
        assert are_consecutive(ids(idle.events()), count)


# --- losses -------------------------------------------------------------------------------


def test_extract_gives_what_is_there_and_says_that_some_is_lost(idle: TraceCmd) -> None:
    traced(idle, 1)
    [first] = re.findall(r"selftest id=(\d+)", read_pipe(idle))
    idle.write("buffer_size_kb", "7")
    idle.write("tracing_on", "1")
    idle.emit(2000, cpu=1)
    idle.write("tracing_on", "0")
    idle("extract")
    text = idle.report("-t")
    events = reported(text)
    assert are_consecutive(ids(events), len(events))
    assert ids(events)[-1] == int(first) + 2000
    assert len(events) < 2000
    # How many, it says where a page has room for it; these events leave none.
    assert text.splitlines()[1] == "CPU:1 [EVENTS DROPPED]"


def test_the_stats_of_a_recording_are_the_hypervisors(idle: TraceCmd) -> None:
    idle.write("events/hypervisor/selftest/enable", "1")
    idle.write("tracing_on", "1")
    idle.emit(2000, cpu=1)
    idle.write("tracing_on", "0")
    stats = idle.read("per_cpu/cpu1/stats")
    [entries, overrun] = (
        int(re.search(rf"^{name}: (\d+)$", stats, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("entries", "overrun")
    )
    assert entries + overrun == 2000
    done = idle("extract")
    assert f"CPU 1: {overrun} events lost" in done.stdout + done.stderr
    assert f"overrun: {overrun}\n" in idle.report("--stat")
    assert len(idle.events()) == entries


# --- text ---------------------------------------------------------------------------------


def test_report_is_what_trace_shows(busy: TraceCmd) -> None:
    """Event by event: trace does not consume, extract does."""
    busy.write("buffer_size_kb", "512")
    busy.write("events/enable", "1")
    busy.write("tracing_on", "1")
    until(lambda: len(busy.read("remotes/hypervisor/trace").splitlines()) > 1000, "events")
    busy.write("tracing_on", "0")
    shown = re.findall(
        r"^\[(\d+)\]\t *(\d+\.\d+): (\w+) (.*)$",
        busy.read("remotes/hypervisor/trace"),
        re.MULTILINE,
    )
    busy("extract")
    lines = [
        (
            f"{event.cpu:03}",
            f"{event.time // 10**9}.{event.time // 1000 % 10**6:06}",
            event.event,
            _said(event),
        )
        for event in busy.events()
    ]
    assert lines == [(*line[:3], line[3].strip()) for line in shown]
    assert "hyp_printk" in {line[2] for line in lines}


_PRINTED = re.compile(r"(.*) \(\{?([^{}]*)\}?\)")  # 3.1 has no braces


def _said(event: Reported) -> str:
    """Its text; that of hyp_printk, with the arguments where its format wants them.

    trace-cmd prints those behind the format: `CPU %u is back (3)`.
    """
    if event.event != "hyp_printk":
        return event.text
    match = _PRINTED.fullmatch(event.text)
    assert match, event.text
    args = iter(int(arg, 0) for arg in match[2].replace(",", " ").split())

    def printed(conversion: re.Match[str]) -> str:
        arg, letter = next(args), conversion[1]
        if letter == "d":
            arg = (arg + 2**31) % 2**32 - 2**31
        return f"%{letter}" % arg

    text = re.sub(r"%(?:ll)?([udx])", printed, match[1])
    assert next(args, None) is None
    return text


def pages_of(tool: TraceCmd, cpu: int) -> bytes:
    """Those that are there now, whole."""
    where = tool.mount.path / f"per_cpu/cpu{cpu}/trace_pipe_raw"
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK)
    parts = []
    try:
        while part := os.read(descriptor, 4096):
            parts.append(part)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts)


def test_restore_makes_a_file_of_pages_and_report_decodes_them_as_we_do(busy: TraceCmd) -> None:
    busy("restore", "-c", "-o", "head.dat")
    busy.write("buffer_size_kb", "512")
    for name in ("hyp_enter", "hyp_exit"):
        busy.write(f"events/hypervisor/{name}/enable", "1")
    busy.write("tracing_on", "1")
    pages = [b""] * CPUS
    deadline = time.monotonic() + PATIENCE_S
    while not all(len(each) > 3 * 4096 for each in pages) and time.monotonic() < deadline:
        pages = [each + pages_of(busy, cpu) for cpu, each in enumerate(pages)]
    busy.write("tracing_on", "0")
    for cpu, each in enumerate(pages):
        (busy.directory / f"cpu{cpu}.raw").write_bytes(each)

    raw = [f"cpu{cpu}.raw" for cpu in range(CPUS)]
    done = run(*TRACE_CMD, "restore", "-i", "head.dat", "-o", "out.dat", *raw, cwd=busy.directory)
    assert done.returncode == 0, done.stderr

    formats = busy.mount.top.glob("events/hypervisor/*/format")
    decoder = Decoder(path.read_text(encoding="ascii") for path in formats)
    events = [
        (event.time, cpu, as_text(event))
        for cpu, each in enumerate(pages)
        for event in decoder.pages(each)
        if isinstance(event, RawEvent)
    ]
    by_report = [(event.time, event.cpu, event.what) for event in busy.events("-i", "out.dat")]
    assert len(by_report) > 100
    assert sorted(by_report) == sorted(events)


# --- what is done with a recording --------------------------------------------------------


@pytest.fixture(scope="module")
def recording(busy_mount: Mount, tmp_path_factory: pytest.TempPathFactory) -> TraceCmd:
    """What a moment of the guest gave, in trace.dat."""
    rest(busy_mount)
    tool = TraceCmd(busy_mount, tmp_path_factory.mktemp("recording"))
    tool.write("buffer_size_kb", "512")
    tool.write("events/enable", "1")
    tool.write("tracing_on", "1")
    run("sleep", "0.5")
    tool.write("tracing_on", "0")
    tool("extract")
    return tool


def test_report_of_one_cpu(recording: TraceCmd) -> None:
    some = recording.events("--cpu", "1")
    assert some == [event for event in recording.events() if event.cpu == 1]


def test_report_filtered(recording: TraceCmd) -> None:
    some = recording.events("-F", "hyp_enter: reason == 1")
    assert some
    assert some == [
        event for event in recording.events() if event.what.startswith("hyp_enter reason=hvc ")
    ]


def test_report_raw(recording: TraceCmd) -> None:
    """Fields as numbers, of each event."""
    plain, raw = recording.events(), recording.events("-R")
    assert [event[:3] for event in raw] == [event[:3] for event in plain]
    [number] = {
        event.text.split()[0]
        for event, shown in zip(raw, plain, strict=True)
        if shown.what.startswith("hyp_enter reason=hvc ")
    }
    assert number == "reason=1"


def test_report_finds_no_time_that_runs_backwards(recording: TraceCmd) -> None:
    assert "backwards" not in recording.report("--ts-check").lower()
    assert len(recording.events("--ts-check")) == len(recording.events())


def test_report_parses_each_event(recording: TraceCmd) -> None:
    text = recording.report()
    for bad in ("FAILED TO PARSE", "UNKNOWN EVENT", "dNHffffffff"):
        assert bad not in text


def test_report_latency_format(recording: TraceCmd) -> None:
    lines = recording.report("-l").splitlines()[1:]
    assert lines
    assert all(re.match(r" +<idle>-0 +[0-2]\.\.\.\.\. ", line) for line in lines)


def between(events: list[Reported]) -> int:
    """A time at which there is no event, nor a nanosecond before or after it."""
    for event, following in itertools.pairwise(events):
        if following.time - event.time > 2:
            return event.time + 2
    raise AssertionError("events without a pause between them")


def test_split(recording: TraceCmd) -> None:
    """From a time to a time. (From the first event on, it writes that twice.)"""
    whole = recording.events()
    quarter = len(whole) // 4
    # It reads them as doubles, which may be a nanosecond less: not the time of an event.
    bounds = [between(whole[quarter:]), between(whole[2 * quarter :])]
    seconds = [f"{time // 10**9}.{time % 10**9:09}" for time in bounds]
    words = ["split", "-i", "trace.dat", "-o", "part.dat", *seconds]
    done = run(*TRACE_CMD, *words, cwd=recording.directory)
    assert done.returncode == 0, done.stderr
    [made] = recording.directory.glob("part.dat*")  # part.dat.1, or part.dat
    part = recording.events("-i", made.name)
    assert part == [event for event in whole if bounds[0] <= event.time <= bounds[1]]
    assert part


def test_dump(recording: TraceCmd) -> None:
    done = run(*TRACE_CMD, "dump", "--summary", "--events", cwd=recording.directory)
    assert done.returncode == 0
    assert "hyp_enter" in done.stdout


def test_hist_needs_a_pid_that_a_hypervisor_has_not(recording: TraceCmd) -> None:
    """It says so, and that is all that can be had."""
    done = run(*TRACE_CMD, "hist", cwd=recording.directory)
    assert done.returncode != 0
    assert "pid" in done.stdout + done.stderr


# --- stream -------------------------------------------------------------------------------


def test_stream(idle: TraceCmd) -> None:
    lines = idle.says("stream", "-e", "selftest", "sh", "-c", emission(20))
    assert sum("selftest" in line for line in lines) == 20


# --- what goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-e", "nosuch"], "No events enabled with nosuch"),
        (["-e", "hypervisor:nosuch"], "No events enabled with hypervisor:nosuch"),
        (["-C", "nosuch"], "Clock nosuch is not supported"),
        (["-p", "function"], "Plugin 'function' does not exist"),
    ],
)
def test_what_is_not_there_is_said(idle: TraceCmd, words: list[str], said: str) -> None:
    done = run(*on(idle.mount.path, *TRACE_CMD, "record", *words, "true"), cwd=idle.directory)
    assert done.returncode not in (0, -signal.SIGSEGV)
    assert said in done.stderr + done.stdout
    works(idle)


def test_an_option_that_is_not_there(idle: TraceCmd) -> None:
    with pytest.raises(OSError, match="nosuch") as raised:
        idle.write("options/nosuch", "1")
    assert raised.value.errno in (errno.EACCES, errno.EPERM)
    words = ("record", "-O", "nosuch", "-e", "hypervisor", "true")
    done = run(*on(idle.mount.path, *TRACE_CMD, *words), cwd=idle.directory)
    assert done.returncode == 0 or "option nosuch" in done.stderr  # 3.1 does not mind
    works(idle)


@pytest.mark.parametrize("text", ["nosuch == 1", "reason ==", "reason == 1 &&", "(reason == 1"])
def test_a_filter_that_is_wrong(idle: TraceCmd, text: str) -> None:
    done = run(
        *on(idle.mount.path, *TRACE_CMD, "record", "-e", "hyp_enter", "-f", text, "true"),
        cwd=idle.directory,
    )
    assert "Failed filter of" in done.stderr + done.stdout
    assert text in idle.read("error_log")
    works(idle)


def test_instances_are_what_they_are(idle: TraceCmd) -> None:
    instances = idle.mount.path / "instances"
    with pytest.raises(PermissionError):
        (instances / "new").mkdir()
    with pytest.raises(PermissionError):
        (instances / "hypervisor").rmdir()
    idle("reset", "-B", "hypervisor", "-d")
    assert idle.says("list", "-B") == ["hypervisor"]
    works(idle)


def works(tool: TraceCmd) -> None:
    """The mount lives on."""
    rest(tool.mount)
    traced(tool, 3)
    assert read_pipe(tool).count("selftest") == 3


def test_a_recorder_that_is_killed(busy: TraceCmd) -> None:
    """Its trace lies in files, and those who record next find all as it should be."""
    with busy.running("record", "-b", "64", "-e", "hypervisor") as process:
        until_recorders_wait(process)
        until_events(busy)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    assert len(list(busy.directory.glob("trace.dat.cpu*"))) == CPUS
    busy("reset")
    busy("record", "-b", "512", "-e", "hypervisor", "sleep", "0.2")
    assert busy.events()


def captured(directory: Path) -> dict[str, int]:
    """Bytes that the recorders have in their files."""
    return {file.name: file.stat().st_size for file in directory.glob("trace.dat.cpu*")}


@contextmanager
def recording_without_a_mount(tmp_path: Path) -> Iterator[tuple[TraceCmd, subprocess.Popen[str]]]:
    """Of two CPUs; each has captured something when the mount goes away."""
    with mounted(tmp_path / "m", "workload=guest", "cpus=2") as mount:
        tool = TraceCmd(mount, tmp_path)
        tool("restore", "-c", "-o", "head.dat")
        with tool.running("record", "-b", "64", "-e", "hypervisor") as process:
            until_recorders_wait(process, cpus=2)
            until(lambda: len(sizes := captured(tmp_path)) == 2 and all(sizes.values()), "pages")
            mount.server.terminate()
            mount.wait_ended()
            yield tool, process


def test_the_mount_goes_away_in_mid_record(tmp_path: Path) -> None:
    """trace-cmd says it. It cannot end what it has begun, and then removes its files."""
    with recording_without_a_mount(tmp_path) as (_, process):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == errno.ENOTCONN
    assert os.strerror(errno.ENOTCONN) in said


def test_the_hypervisor_dies_in_mid_record(tmp_path: Path) -> None:
    """The mount stays, and trace-cmd ends as ever, with all that there was."""
    with mounted(tmp_path / "m", "workload=guest", "cpus=2") as mount:
        tool = TraceCmd(mount, tmp_path)
        with tool.running("record", "-b", "64", "-e", "hypervisor") as process:
            until_recorders_wait(process, cpus=2)
            until(lambda: len(sizes := captured(tmp_path)) == 2 and all(sizes.values()), "pages")
            os.kill(mount.model(), signal.SIGKILL)
            # Until it is noticed, tracing_on may be ENODEV.
            until(lambda: "state gone" in tool.read("hypervisor/statistics"), "its end")
            until(lambda: tool.read("tracing_on") == "0\n", "the mount to notice")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert {event.cpu for event in tool.events()} == {0, 1}


def test_what_was_captured_before_the_mount_went_away_is_kept(tmp_path: Path) -> None:
    """By who kills trace-cmd: what its recorders have written becomes a trace.dat."""
    with recording_without_a_mount(tmp_path) as (tool, process):
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    files = sorted(captured(tmp_path))
    assert files == ["trace.dat.cpu0", "trace.dat.cpu1"]
    done = run(*TRACE_CMD, "restore", "-i", "head.dat", "-o", "out.dat", *files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {event.cpu for event in tool.events("-i", "out.dat")} == {0, 1}


# --- what tools ask for -------------------------------------------------------------------

# Files of a kernel that a hypervisor has not, and that tools look for and do without.
_OPTIONAL = {
    "dynamic_events", "error_log", "function-trace", "kprobe_events", "uprobe_events",
    "set_event_notrace_pid", "set_event_pid", "set_ftrace_filter", "set_ftrace_notrace",
    "set_ftrace_notrace_pid", "set_ftrace_pid", "set_graph_function", "set_graph_notrace",
    "synthetic_events", "tracing_cpumask", "tracing_enabled", "tracing_max_latency", "trigger",
}  # fmt: skip
# And of the placeholder of ftrace's own events.
_OF_FTRACE = ("/events/ftrace/filter", "/events/ftrace/print/filter")

_FAILED_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += -1 (E\w+) ")


def unexpected(trace: Path, pattern: str) -> list[str]:
    """Failed calls of a trace of strace that no kernel's tracefs would fail."""
    return [
        line
        for line in trace.read_text(encoding="utf-8", errors="replace").splitlines()
        if (match := _FAILED_CALL.match(line)) and not _is_expected(match, pattern)
    ]


def _is_expected(match: re.Match[str], pattern: str) -> bool:
    call, arguments, error = match.groups()
    path = re.search(r'"(/sys/kernel/tracing[^"]*)"', arguments)
    if call == "ioctl":
        return error == "ENOTTY"  # wake-up of libtracefs, isatty()
    if error == "EAGAIN":
        return True
    if path is None:
        return call not in ("read", "write", "splice", "pselect6", "select")
    name = path[1].rpartition("/")[2]
    # A pattern is tried as a system, and as an event of each system.
    return error == "ENOENT" and (
        name in _OPTIONAL or path[1].endswith(_OF_FTRACE) or f"/{pattern}" in path[1]
    )


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    "words",
    [
        ["record", "-e", "hypervisor", "sleep", "0.2"],
        ["record", "-b", "64", "-C", "boot", "-e", "hyp_enter", "sleep", "0.2"],
        ["start", "-e", "hypervisor"],
        ["stop"],
        ["extract"],
        ["list"],
        ["list", "-F"],
        ["stat"],
        ["clear"],
        ["restore", "-c", "-o", "head.dat"],
        ["reset"],
    ],
    ids=str,
)
def test_no_call_fails_that_should_not(busy: TraceCmd, words: list[str]) -> None:
    trace = busy.directory / "strace"
    done = run(
        *on(busy.mount.path, "strace", "-f", "-Z", "-o", str(trace), *TRACE_CMD, *words),
        cwd=busy.directory,
    )
    assert done.returncode == 0, done.stderr
    pattern = words[words.index("-e") + 1] if "-e" in words else ""
    calls = unexpected(trace, pattern)
    if words == ["reset"]:  # it reads instances/, as a file
        calls = [line for line in calls if "EISDIR" not in line]
    assert calls == []


# --- the machine --------------------------------------------------------------------------

_OF_THE_MACHINE = (
    "/proc/sys/kernel/ftrace_enabled",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/mounts",
)
_OF_TRACEFS = (
    "tracing_on", "current_tracer", "trace_clock", "buffer_size_kb", "events/enable",
    "set_event",
)  # fmt: skip


@pytest.fixture
def kernel_tracefs(tmp_path: Path) -> Iterator[Path]:
    """The machine's own, where the tests see it and tools on a mount of ours must not."""
    where = tmp_path / "kernel"
    where.mkdir()
    if run("mount", "-t", "tracefs", "nodev", str(where)).returncode:
        pytest.skip("this machine gives no tracefs")
    yield where
    run("umount", "-l", str(where))


def machine(tracing: Path) -> dict[str, str]:
    """What tools would change of it, as it is outside of `hyptrace exec`."""
    files = [*map(Path, _OF_THE_MACHINE), *(tracing / name for name in _OF_TRACEFS)]
    return {str(file): file.read_text(encoding="utf-8") for file in files if file.exists()}


def test_the_machine_is_as_it_was(idle: TraceCmd, kernel_tracefs: Path) -> None:
    before = machine(kernel_tracefs)
    assert f"{kernel_tracefs}/tracing_on" in before
    idle("record", "-b", "64", "-C", "boot", "-e", "hypervisor", "true")
    idle("start", "-e", "hypervisor")
    assert machine(kernel_tracefs) == before
    idle("stop")
    idle("reset")
    assert machine(kernel_tracefs) == before
