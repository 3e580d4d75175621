"""The soak: a storm, and readers of every kind that come and go; what is promised is checked.

It runs in phases of some seconds, planned from the seed before they begin:

* `gentle`: readers come, are stopped and continued, and end without dropping what they have been
  given. Then, for each CPU, exactly:
      events that readers got = read - filtered - skipped - abandoned      (`statistics`)
      losses that they were told of = lost + abandoned - unreported
      written (by the hypervisor) = entries = read + overrun + unread
  A raw page that says "some were lost" without a number leaves the second one at "not more than".
* `rough`: the same, and readers are killed (SIGKILL) wherever they are. What they had been given
  and not written down goes with them, so the first two are "not more than"; the third is exact.
* `chaos`: control files are written at random, sizes changed, tracing switched and reset, `trace`
  and `trace-cmd record` run, and the hypervisor is killed and comes back. No count survives a
  reset: what is checked is the third law, and all of the following.

Always: each reader's lines and pages are well-formed, its times rise on each CPU, whatever is
ended ends within PATIENCE_S; between phases the log of the server has no bug; at the end it has no
more descriptors and memory than in the warm-up, and the threads that it began with.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.mounts import Model, Mount, modelled, mounted
from tests.soak_reader import WAYS

PATIENCE_S = 10
CPUS = 2
PAGE = 4096
_WARM_UP = 6  # phases
_MAX_GROWTH_KB = 1024
_RAW_WAYS = ("blocking", "polling", "late-nonblock", "splice")
_TEXT_WAYS = tuple(way for way in WAYS if way != "splice")
_EVENTS = ("hyp_enter", "hyp_exit", "host_hcall", "selftest")

_CPU_LINE = re.compile(r"(host|hypervisor) cpu(\d+) (.*)")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# --- the plan -------------------------------------------------------------------------------


class Step(NamedTuple):
    """After `delay` seconds do `what` with `which` (a number that chooses among what there is)."""

    delay: float
    what: str
    which: int


_WEIGHTS = {
    "gentle": {"start": 6, "stop": 2, "continue": 2, "end": 3},
    "rough": {"start": 6, "stop": 2, "continue": 2, "end": 1, "kill": 3},
    "chaos": {
        "start": 5, "stop": 1, "continue": 2, "kill": 3, "control": 8, "show": 2,
        "hypervisor": 1, "record": 1,
    },
}  # fmt: skip
_ORDER = ("gentle", "rough", "chaos")


@dataclass(frozen=True)
class Phase:
    """What is done in some seconds; the same for the same seed and number."""

    kind: str
    size_kb: int
    steps: tuple[Step, ...]


def plan(seed: int, number: int, seconds: float) -> Phase:
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    kind = _ORDER[number % len(_ORDER)]
    weights = _WEIGHTS[kind]
    steps, left = [], seconds
    while left > 0:
        delay = chance.uniform(0, 0.15)
        [what] = chance.choices(list(weights), list(weights.values()))
        steps.append(Step(delay, what, chance.randrange(1 << 30)))
        left -= delay
    return Phase(kind, chance.choice([7, 16, 64, 256, 1024]), tuple(steps))


# --- what readers got -----------------------------------------------------------------------


@dataclass
class Got:
    """By CPU."""

    events: Counter[int] = field(default_factory=Counter)
    lost: Counter[int] = field(default_factory=Counter)
    uncounted: set[int] = field(default_factory=set)  # CPUs of which some were lost, who knows

    def add(self, other: Got) -> None:
        self.events += other.events
        self.lost += other.lost
        self.uncounted |= other.uncounted


_LINE = re.compile(rb"\[(\d{3})\]\t *(\d+)\.(\d{6}): (\w.*)")
_LOST = re.compile(rb"CPU:(\d+) \[LOST (\d+) EVENTS\]")


def parse_text(data: bytes) -> Got:
    """Raises ValueError for what is malformed. The last line may be cut off."""
    got = Got()
    last: dict[int, int] = {}
    for line in data.split(b"\n")[:-1]:
        if match := _LINE.fullmatch(line):
            cpu, time_us = int(match[1]), int(match[2] + match[3])
            if time_us < last.get(cpu, 0):
                raise ValueError(f"time runs backwards: {line!r}")
            last[cpu] = time_us
            got.events[cpu] += 1
        elif match := _LOST.fullmatch(line):
            got.lost[int(match[1])] += int(match[2])
        else:
            raise ValueError(f"malformed line: {line!r}")
    return got


def _delta_of(header: int, data: bytes, at: int) -> tuple[int, int]:
    """Of an item that is no event: nanoseconds, bytes."""
    kind, delta = header & 31, header >> 5
    if kind != 30:
        raise ValueError(f"item of type {kind} at {at}")
    (more,) = struct.unpack_from("<I", data, at + 4)
    return delta + (more << 27), 8


def _count_events(data: bytes) -> int:
    at = events = 0
    while at < len(data):
        (header,) = struct.unpack_from("<I", data, at)
        kind = header & 31
        if kind > 28:
            at += _delta_of(header, data, at)[1]
            continue
        length = 4 + 4 * kind
        if not kind:
            (array,) = struct.unpack_from("<I", data, at + 4)
            length = 4 + array
        at += length
        events += 1
    if at != len(data):
        raise ValueError(f"an event ends at {at}, the data at {len(data)}")
    return events


def parse_pages(cpu: int, data: bytes) -> Got:
    """Whole pages; of the last one, a part may be missing. Raises ValueError."""
    got = Got()
    last = 0
    for at in range(0, len(data) - PAGE + 1, PAGE):
        stamp, commit = struct.unpack_from("<QQ", data, at)
        length = commit & 0xFFFFF
        missed, stored = commit >> 31 & 1, commit >> 30 & 1
        if length > PAGE - 16 or stamp < last:
            raise ValueError(f"page {at // PAGE}: stamp {stamp} after {last}, commit {commit:#x}")
        last = stamp
        begin = at + 16
        got.events[cpu] += _count_events(data[begin : begin + length])
        if stored:
            got.lost[cpu] += struct.unpack_from("<Q", data, begin + length)[0]
        elif missed:
            got.uncounted.add(cpu)
    return got


# --- readers ----------------------------------------------------------------------------------


@dataclass
class Running:
    """A reader, and where it writes what it gets."""

    name: str
    process: subprocess.Popen[bytes]
    outputs: tuple[Path, ...]
    raw_cpu: int | None  # of pages; None: text
    graceful: bool  # SIGTERM ends it wherever it is, and it drops nothing
    stopped: bool = False

    def send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def got(self) -> Got:
        total = Got()
        for output in self.outputs:
            data = output.read_bytes() if output.exists() else b""
            if self.raw_cpu is None:
                total.add(parse_text(data))
            else:
                total.add(parse_pages(self.raw_cpu, data))
        return total


class Soak:
    """One mount, one hypervisor after the other."""

    def __init__(self, mount: Mount, model: Model, directory: Path, rate: str) -> None:
        self.mount = mount
        self.model = model
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self._directory = directory
        self._rate = rate
        self._readers: list[Running] = []
        self._number = 0
        self._holder = -1
        self._killed = 0
        self._log_seen = 0  # characters

    # --- what is seen of the server

    def violate(self, what: str) -> None:
        self.violations.append(what)
        _say(f"VIOLATION: {what}")

    def status(self, name: str) -> int:
        """A number of /proc/PID/status."""
        text = Path(f"/proc/{self.mount.server.pid}/status").read_text(encoding="ascii")
        return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.mount.server.pid}/fd"))  # noqa: PTH208

    def statistics(self) -> dict[tuple[str, int], dict[str, int]]:
        table = {}
        for line in self.mount.read("statistics").splitlines():
            if match := _CPU_LINE.fullmatch(line):
                words = match[3].split()
                numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
                table[match[1], int(match[2])] = numbers
        return table

    def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> bool:
        """Wait until `holds()`. A violation, and False, if that does not come."""
        deadline = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > deadline:
                self.violate(f"after {patience_s} s: {what}")
                return False
            time.sleep(0.01)
        return True

    # --- steps

    def _command(self, which: int) -> tuple[str, list[str], int | None]:
        """The name of a reader, its command (OUT for where it writes), the CPU of its pages."""
        chance = random.Random(which)  # noqa: S311
        cpu = chance.randrange(CPUS)
        raw = chance.random() < 0.4
        where = f"per_cpu/cpu{cpu}/" if raw or chance.random() < 0.5 else ""
        path = str(self.mount.top / where / ("trace_pipe_raw" if raw else "trace_pipe"))
        size = chance.choice([4096, 65536]) if raw else chance.choice([97, 1000, 4096, 70000])
        way = chance.choice([*(_RAW_WAYS if raw else _TEXT_WAYS), "cat", "dd"])
        name = f"{way} {'raw' if raw else 'text'} {where or 'all'} {size}"
        of = cpu if raw else None
        if way == "cat":
            return name, ["cat", path], of
        if way == "dd":
            blocks = f"count={chance.randrange(1, 300)}"
            odd = chance.choice([333, 777, 5000])
            return name, ["dd", "status=none", f"bs={odd}", blocks, f"if={path}"], of
        if way == "shared" and not raw:
            size = max(size, 4096)  # or they would have halves of lines
        return name, [sys.executable, "-m", "tests.soak_reader", way, path, str(size), "OUT"], of

    def _start(self, which: int) -> None:
        if len(self._readers) > 25:
            return
        name, command, raw_cpu = self._command(which)
        self._number += 1
        out = self._directory / f"reader{self._number}"
        out.touch()
        graceful = command[-1] == "OUT"
        command = [str(out) if word == "OUT" else word for word in command]
        with out.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        outputs = (out, out.with_suffix(".child"))
        self._readers.append(Running(name, process, outputs, raw_cpu, graceful))
        self.counts["readers"] += 1

    def _chosen(self, which: int, holds: Callable[[Running], bool]) -> Running | None:
        among = [r for r in self._readers if r.process.poll() is None and holds(r)]
        return among[which % len(among)] if among else None

    def _stop(self, which: int) -> None:
        if reader := self._chosen(which, lambda reader: not reader.stopped):
            reader.send(signal.SIGSTOP)
            reader.stopped = True

    def _continue(self, which: int) -> None:
        if reader := self._chosen(which, lambda reader: reader.stopped):
            reader.send(signal.SIGCONT)
            reader.stopped = False

    def _end_gracefully(self, reader: Running) -> None:
        def ended() -> bool:
            reader.send(signal.SIGTERM)  # again: one that came right before its read was too early
            return reader.process.poll() is not None

        reader.send(signal.SIGCONT)
        self.until(ended, f"{reader.name} has not ended by SIGTERM")

    def _end(self, which: int) -> None:
        if reader := self._chosen(which, lambda reader: reader.graceful):
            self._end_gracefully(reader)
            self.counts["ended"] += 1

    def _kill_reader(self, reader: Running) -> None:
        begin = time.monotonic()
        reader.send(signal.SIGKILL)
        try:
            reader.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.violate(f"{reader.name} does not die")
        slowest = int((time.monotonic() - begin) * 1000)
        self.counts["slowest kill, ms"] = max(self.counts["slowest kill, ms"], slowest)

    def _kill(self, which: int) -> None:
        if reader := self._chosen(which, lambda _reader: True):
            self._kill_reader(reader)
            self._killed += 1
            self.counts["killed"] += 1

    def _control(self, which: int) -> None:
        chance = random.Random(which)  # noqa: S311
        name, value = chance.choice(
            [
                ("tracing_on", chance.choice("01")),
                ("tracing_on", "1"),
                ("buffer_size_kb", str(chance.choice([0, 1, 7, 64, 300, 1 << 40]))),
                ("trace", ""),
                (f"per_cpu/cpu{chance.randrange(CPUS)}/trace", ""),
                (f"events/hypervisor/{chance.choice(_EVENTS)}/enable", chance.choice("01")),
                ("events/enable", chance.choice(["0", "1", "2", "x" * 100])),
                ("selftest_event", "1"),
                ("../events/hypervisor/filter", chance.choice(["0", "vcpu == 0", "(("])),
                ("set_event", chance.choice(["hyp_*", "!hyp_exit", "nosuch"])),
            ]
        )
        command = ["timeout", "20", "sh", "-c", 'printf %s "$1" > "$2"', "sh", value]
        path = str(self.mount.top / name)
        done = subprocess.run([*command, path], check=False, capture_output=True)
        if done.returncode == 124:
            self.violate(f"a write of {value!r} to {name} hangs")
        self.counts["controls"] += 1

    def _show(self, which: int) -> None:
        path = (
            self.mount.path
            / "remotes/hypervisor"
            / ("trace" if which % 2 else "per_cpu/cpu1/trace")
        )
        command = ["timeout", "20", "cat", str(path)]
        done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode == 124:
            self.violate(f"cat {path} hangs")
        self._parsed("cat trace", lambda: parse_text(done.stdout))
        self.counts["shown"] += 1

    def _hypervisor(self, which: int) -> None:  # noqa: ARG002
        with contextlib.suppress(OSError):
            self.statistics()
        self.model.kill()
        self.model = new_model(self.model.path, self._rate)
        self._switch_on()
        self.counts["hypervisors"] += 1

    def _switch_on(self) -> None:
        try:
            self.mount.write("tracing_on", "1")
        except OSError as error:
            self.violate(f"echo 1 > tracing_on: {error.strerror}")

    def _record(self, which: int) -> None:  # noqa: ARG002
        if shutil.which("trace-cmd") is None:
            return
        out = self._directory / "trace.dat"
        command = [sys.executable, "-m", "hyptrace", "exec", "--mount", str(self.mount.path), "--"]
        record = ["trace-cmd", "record", "-q", "-e", "hypervisor", "-o", str(out), "sleep", "0.3"]
        process = subprocess.Popen(
            [*command, *record], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            process_group=0,
        )  # fmt: skip
        try:
            process.wait(6 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.violate("trace-cmd record hangs")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.counts["recordings"] += 1

    # --- phases

    def _parsed(self, name: str, parse: Callable[[], Got]) -> Got:
        try:
            return parse()
        except (ValueError, struct.error) as error:
            self.violate(f"{name}: {error}")
            return Got()

    def _begin(self, phase: Phase) -> None:
        self.mount.write("tracing_on", "0")
        self.mount.write("trace", "")
        with contextlib.suppress(OSError):
            (self.mount.path / "events/hypervisor/filter").write_text("0", encoding="ascii")
        if not self.until(lambda: "unloaded" in self.mount.read("buffer_size_kb"), "not unloaded"):
            return
        self.mount.write("buffer_size_kb", str(phase.size_kb))
        self.mount.write("events/enable", "0")
        for event in _EVENTS:
            self.mount.write(f"events/hypervisor/{event}/enable", "1")
        self._killed = 0
        # Holds the buffer, and so its counts, and reads what the others leave.
        self._holder = os.open(self.mount.top / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._switch_on()

    def _drain(self) -> Got:
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._holder, 1 << 20):
                parts.append(part)
        return self._parsed("the last reader", lambda: parse_text(b"".join(parts)))

    def _end_readers(self, *, gentle: bool) -> None:
        for reader in self._readers:
            reader.send(signal.SIGCONT)
        for reader in self._readers:
            if reader.process.poll() is None:
                if gentle and reader.graceful:
                    self._end_gracefully(reader)
                else:
                    self._kill_reader(reader)

    def _settled(self) -> bool:
        """With tracing off: the others have written down what they were given."""

        def asleep(reader: Running) -> bool:
            if reader.graceful or reader.process.poll() is not None:
                return True
            where = Path(f"/proc/{reader.process.pid}/wchan").read_text(encoding="ascii")
            return where == "request_wait_answer"

        return all(asleep(reader) for reader in self._readers)

    def _finish(self, phase: Phase) -> None:
        gentle = phase.kind == "gentle"
        self.mount.write("tracing_on", "0")
        for reader in self._readers:
            reader.send(signal.SIGCONT)
        total = self._drain()
        self.until(self._settled, "readers that do not wait for events, with none there")
        self._end_readers(gentle=gentle)
        self.until(self._only_the_holder, "readers that have died and are not closed")
        total.add(self._drain())
        statistics = self.statistics()
        for reader in self._readers:
            if phase.kind == "gentle" and reader.process.wait() > 0:
                self.violate(f"{reader.name} has failed with status {reader.process.returncode}")
            total.add(self._parsed(reader.name, reader.got))
            for output in reader.outputs:
                output.unlink(missing_ok=True)
        self._readers.clear()
        os.close(self._holder)
        self._check_laws(phase, total, statistics)

    def _only_the_holder(self) -> bool:
        return "host readers 1\n" in self.mount.read("statistics")

    def _check_laws(
        self, phase: Phase, total: Got, statistics: dict[tuple[str, int], dict[str, int]]
    ) -> None:
        for cpu in range(CPUS):
            host = statistics.get(("host", cpu))
            if host is None:
                if phase.kind != "chaos":
                    self.violate(f"{phase.kind}: no statistics of CPU {cpu}")
                continue
            written = statistics.get(("hypervisor", cpu), {}).get("written", host["entries"])
            if not written == host["entries"] == host["read"] + host["overrun"] + host["unread"]:
                self.violate(f"{phase.kind}: CPU {cpu}: written {written}, {host}")
            if phase.kind != "chaos":
                self._check_readers(phase, cpu, total, host)
            self.counts["events"] += host["entries"]
            self.counts["lost"] += host["lost"]
            self.counts["abandoned"] += host["abandoned"]

    def _check_readers(self, phase: Phase, cpu: int, total: Got, host: dict[str, int]) -> None:
        gone = self._killed if phase.kind == "rough" else 0
        given = host["read"] - host["filtered"] - host["skipped"] - host["abandoned"]
        told = host["lost"] + host["abandoned"] - host["unreported"]
        taken = given - total.events[cpu]
        unsaid = told - total.lost[cpu]
        self.counts["taken by killed"] += taken
        if taken < 0 or (taken and not gone and phase.kind == "gentle"):
            self.violate(f"{phase.kind}: CPU {cpu}: {taken} of {given} events in nobody's hands")
        if unsaid < 0 or (unsaid and phase.kind == "gentle" and cpu not in total.uncounted):
            self.violate(f"{phase.kind}: CPU {cpu}: {unsaid} of {told} losses told to nobody")

    def run_phase(self, phase: Phase) -> None:
        actions: dict[str, Callable[[int], None]] = {
            "start": self._start, "stop": self._stop, "continue": self._continue,
            "end": self._end, "kill": self._kill, "control": self._control, "show": self._show,
            "hypervisor": self._hypervisor, "record": self._record,
        }  # fmt: skip
        self._begin(phase)
        for step in phase.steps:
            time.sleep(step.delay)
            actions[step.what](step.which)
        self._finish(phase)
        self._check_server()

    def _check_server(self) -> None:
        if self.mount.server.poll() is not None:
            self.violate(f"the server has ended: {self.mount.log()[-2000:]}")
            return
        log = self.mount.log()
        new, self._log_seen = log[self._log_seen :], len(log)
        for word in ("a bug", "Traceback"):
            if word in new:
                self.violate(f"the log says {word!r}: {new[-2000:]}")


# --- the run ------------------------------------------------------------------------------------


def new_model(path: Path, rate: str) -> Model:
    return Model(path, f"--cpus={CPUS}", f"--workload=storm:{rate}")


@contextlib.contextmanager
def _soaking(directory: Path, rate: str) -> Iterator[Soak]:
    listen = f"--workload=storm:{rate}"
    with (
        modelled(directory / "hyp.sock", f"--cpus={CPUS}", listen) as model,
        mounted(directory / "mount", "max_buffer_mb=64", source=model.source) as mount,
    ):
        soak = Soak(mount, model, directory, rate)
        try:
            yield soak
        finally:
            for reader in soak._readers:
                reader.send(signal.SIGKILL)
                reader.process.wait()
            soak.model.kill()


def soak(seconds: float, seed: int, rate: str, phase_s: float = 4) -> Soak:
    """Run for about that long. What was found is in `violations`."""
    with tempfile.TemporaryDirectory() as directory, _soaking(Path(directory), rate) as run:
        end = time.monotonic() + seconds
        number, memory, descriptors = 0, [], []
        threads = run.status("Threads")
        while time.monotonic() < end or number < len(_ORDER):
            phase = plan(seed, number, phase_s)
            _say(f"phase {number}: {phase.kind}, {phase.size_kb} KiB, {len(phase.steps)} steps")
            run.run_phase(phase)
            number += 1
            if run.mount.server.poll() is not None:
                return run
            descriptors.append(run.descriptors())
            memory.append(run.status("RssAnon"))
            _say(f"  RssAnon {memory[-1]} kB, {descriptors[-1]} descriptors, "
                 f"{run.status('Threads')} threads")  # fmt: skip
        # A buffer is given back in a thread; a doorbell hangs once somebody has waited.
        most = max(descriptors[:_WARM_UP])
        run.until(lambda: run.descriptors() <= most, f"more than {most} descriptors")
        # Those that have had nothing to do for 10 s end.
        run.until(lambda: run.status("Threads") <= threads, f"more than {threads} threads", 20)
        growth = max(memory[-3:]) - max(memory[:_WARM_UP])
        if len(memory) > 2 * _WARM_UP and growth > _MAX_GROWTH_KB:
            run.violate(f"memory has grown by {growth} kB since the warm-up")
        run.counts["phases"] = number
        return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", default="20000", help="events a second on each CPU, or max")
    arguments = parser.parse_args()
    run = soak(60 * arguments.minutes, arguments.seed, arguments.rate)
    _say(", ".join(f"{count} {name}" for name, count in run.counts.items()))
    _say(f"{len(run.violations)} violations (seed {arguments.seed})")
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
