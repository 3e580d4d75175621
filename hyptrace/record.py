"""`hyptrace record`: what happens, into a trace.dat."""

from __future__ import annotations

import errno
import os
import resource
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from hyptrace.apart import Apart, HangsError, Inside, Pulse, answer
from hyptrace.capture import Metadata, read_metadata
from hyptrace.held_command import CANNOT_RUN, NOT_FOUND
from hyptrace.mount import find_mount, mount_option
from hyptrace.output import refuse_existing
from hyptrace.recorder import Ending, MountDiedError, Recorder, ending_of
from hyptrace.trace_dat_writer import TraceDatWriter
from hyptrace.tracing import CpuCounters, Tracing, matching, parse_cpus, parse_stats

_FAILED = 1
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)  # ENOENT: unmounted, too

# What the process that records says: its files are there; COMMAND may run; how far it is; and what
# is wrong beside what has failed.
_COLLECTING, _RECORDING, _PROGRESS, _WARNING = "collecting", "recording", "progress", "warning"
_PROGRESS_S = 1.0
_FILES_PER_CPU = 2  # its pipe, and what its pages are collected in
_OTHER_FILES = 64

_EPILOG = """\
\b
Examples:
  hyptrace record                                        until ^C
  hyptrace record -e hyp_enter -e hyp_exit sleep 5
  hyptrace record -b 4096 -o boot.dat -- ./start-guest --vcpus 4
  hyptrace report trace.dat --stats
  trace-cmd report trace.dat

\b
EVENT is a system, an event, or both, as set_event takes them: hypervisor, hyp_exit,
hypervisor:hyp_exit, 'host_*'.

\b
Exit status: that of COMMAND (128 and the number of the signal that has ended it); otherwise
  0    recorded, until ^C or another signal
  1    not recorded, or not all: one line on stderr says why
  2    wrong usage
  126  COMMAND cannot be run
  127  COMMAND is not found
"""


def _say(text: str) -> None:
    click.echo(f"hyptrace: {text}", err=True)


# --- what is wanted ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What to record, and what is known of it before."""

    tracing: Tracing
    events: Sequence[str]
    cpus: Sequence[int]
    nr_cpus: int  # of the mount, as their numbers go
    size_kb: int | None
    metadata: Metadata


def _events(tracing: Tracing, patterns: Sequence[str]) -> list[str]:
    """What `patterns` match; without any what is on; and if nothing is, all."""
    if not patterns:
        return tracing.enabled() or tracing.events()
    there = tracing.events()
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = matching(there, pattern)
        if not matched:
            names = ", ".join(event.partition(":")[2] for event in there)
            raise click.UsageError(f"-e {pattern} matches no event; there are: {names}")
        found.update(dict.fromkeys(matched))
    return list(found)


def _cpus(tracing: Tracing, text: str | None) -> list[int]:
    there = tracing.cpus()
    try:
        wanted = there if text is None else parse_cpus(text)
    except ValueError as error:
        raise click.UsageError(f"--cpu: {error}") from None
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise click.UsageError(f"--cpu: there is no CPU {missing[0]}; the last is {there[-1]}")
    return wanted


def _ask_for(out: Path, *, force: bool) -> None:
    """Whether `out` may be overwritten: asks who can answer; others have to say --force."""
    exists = out.exists() or out.is_symlink()
    if exists and not force and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"{out} exists. Overwrite it?", abort=True, err=True)
        return
    refuse_existing(out, force=force)


def _cannot_run(command: Sequence[str]) -> int:
    """Exit status if `command` will not run; 0: it may."""
    if not command or shutil.which(command[0]):
        return 0
    found = os.path.sep in command[0] and Path(command[0]).exists()
    _say(f"{command[0]}: {os.strerror(errno.EACCES if found else errno.ENOENT)}")
    return CANNOT_RUN if found else NOT_FOUND


# --- what is changed, and put back --------------------------------------------------------------


def _resize(tracing: Tracing, size_kb: int) -> None:
    if tracing.size_kb != size_kb:
        tracing.set_size(size_kb)


class _Before:
    """Size, events and tracing_on, as they were."""

    def __init__(self, tracing: Tracing, pulse: Pulse) -> None:
        self._tracing, self._pulse = tracing, pulse
        with pulse:
            self._enabled, self._size_kb, self._on = tracing.enabled(), tracing.size_kb, tracing.on

    def put_back(self) -> str:
        """Take all steps, also after one that fails. Says which have failed; empty: none."""
        tracing = self._tracing
        steps = [
            ("tracing_on", lambda: tracing.trace(on=False)),
            ("trace", tracing.forget),
            ("buffer_size_kb", lambda: _resize(tracing, self._size_kb)),
            ("events", lambda: tracing.enable(self._enabled)),
            ("tracing_on", lambda: tracing.trace(on=self._on)),
        ]
        failed = [(what, why) for what, step in steps if (why := self._take(step))]
        whats = ", ".join(what for what, _ in failed)
        return f"not put back: {whats}: {failed[0][1]}" if failed else ""

    def _take(self, step: Callable[[], None]) -> str:
        """Why it has failed."""
        try:
            with self._pulse:
                step()
        except OSError as error:
            # Where there is no mount there is nothing to put back.
            return "" if error.errno in _DEAD else error.strerror or str(error)
        return ""


def _set_up(plan: Plan, pulse: Pulse) -> None:
    tracing = plan.tracing
    with pulse:
        tracing.trace(on=False)
        tracing.forget()
    if plan.size_kb is not None:
        try:
            with pulse:
                _resize(tracing, plan.size_kb)
        except OSError as error:
            raise click.ClickException(_why_not_resized(plan, error)) from None
    with pulse:
        tracing.enable(plan.events)


def _why_not_resized(plan: Plan, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"{plan.tracing.path}: others have a pipe open: end them, or leave -b out"
    return f"-b {plan.size_kb}: {error.strerror}"


def _enough_files(cpus: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = cpus * _FILES_PER_CPU + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- how far it is ------------------------------------------------------------------------------


class _Counts:
    """What the CPUs have counted since this was made."""

    def __init__(self, tracing: Tracing, cpus: Sequence[int], pulse: Pulse) -> None:
        self._tracing, self._cpus, self._pulse = tracing, cpus, pulse
        self._before = self._now = {cpu: parse_stats(text) for cpu, text in self._ask()}
        self.texts: dict[int, str] = {}

    def _ask(self) -> Iterator[tuple[int, str]]:
        for cpu in self._cpus:
            with self._pulse:
                text = self._tracing.read(f"per_cpu/cpu{cpu}/stats")
            yield cpu, text

    def look(self) -> None:
        """Ask them."""
        self.texts = dict(self._ask())
        self._now = {cpu: parse_stats(text) for cpu, text in self.texts.items()}

    def since(self, count: Callable[[CpuCounters], int]) -> dict[int, int]:
        """By CPU, by how much something has grown."""
        return {cpu: count(self._now[cpu]) - count(self._before[cpu]) for cpu in self._now}


class _Progress:
    """Says how far it is, if somebody sees it."""

    def __init__(self, counts: _Counts, recorder: Recorder, inside: Inside, *, seen: bool) -> None:
        self._counts, self._recorder, self._inside = counts, recorder, inside
        self._began = time.monotonic()
        self._due = self._began
        self._seen = seen

    def tick(self) -> float | None:
        """Say it if it is time to; seconds until it is again."""
        if not self._seen:
            return None
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        try:
            self._counts.look()
        except OSError as error:
            raise MountDiedError(error.errno, error.strerror) from None
        self._inside.say(_PROGRESS, self._line(now))
        # Of many CPUs it takes long to ask: that is time in which nothing is recorded.
        after = max(_PROGRESS_S, 20 * (time.monotonic() - now))
        self._due = time.monotonic() + after
        return after

    def _line(self, now: float) -> str:
        events = sum(self._counts.since(lambda each: each.read).values())
        lost = self._counts.since(lambda each: each.lost)
        losers = " ".join(f"cpu{cpu}:{nr}" for cpu, nr in lost.items() if nr) or "none"
        seconds, megabytes = now - self._began, self._recorder.kept / 1e6
        return f"{seconds:.0f} s  {events} events  {megabytes:.1f} MB  lost {losers}"


def _summary(counts: _Counts) -> Iterator[str]:
    dropped = counts.since(lambda each: each.dropped)
    overrun = counts.since(lambda each: each.overrun)
    for cpu, events in counts.since(lambda each: each.read).items():
        refused = f", {dropped[cpu]} dropped" if dropped[cpu] else ""
        yield f"CPU {cpu}: {events} events, {overrun[cpu]} lost{refused}\n"


def _mostly_lost(counts: _Counts) -> bool:
    lost, events = counts.since(lambda each: each.lost), counts.since(lambda each: each.read)
    return sum(lost.values()) > sum(events.values())


# --- recording, in a process of its own ---------------------------------------------------------


@dataclass
class Outcome:
    """What became of a recording: what has been read is there whatever became of the rest."""

    failed: str = ""  # what went wrong
    summary: str = ""
    mostly_lost: bool = False
    stats: dict[int, str] = field(default_factory=dict)
    not_put_back: str = ""


class _Session:
    """A recording under way."""

    def __init__(self, plan: Plan, out: Path, inside: Inside, *, seen: bool) -> None:
        self._plan, self._out, self._inside = plan, out, inside
        try:
            writer = TraceDatWriter(out, plan.nr_cpus)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(out)) from None
        inside.say(_COLLECTING)
        self._recorder = Recorder(plan.tracing, plan.cpus, writer, inside.pulse)
        self._counts = _Counts(plan.tracing, plan.cpus, inside.pulse)
        self._progress = _Progress(self._counts, self._recorder, inside, seen=seen)

    def _trace(self, *, on: bool) -> None:
        with self._inside.pulse:
            self._plan.tracing.trace(on=on)

    def _run(self) -> None:
        self._trace(on=True)
        self._inside.say(_RECORDING)
        self._recorder.run(self._inside.stop, self._progress.tick)
        self._trace(on=False)
        self._recorder.drain()
        self._counts.look()

    def _failure(self) -> str:
        """Record, to the end. What went wrong."""
        try:
            self._run()
        except MountDiedError as error:
            return f"{self._plan.tracing.path}: the mount has died: {error.strerror}"
        except OSError as error:
            return f"{error.filename or self._out}: {error.strerror}"
        finally:
            self._recorder.close()
        return ""

    def outcome(self) -> Outcome:
        """Record, to the end."""
        failed = self._failure()
        counts = self._counts
        return Outcome(failed, "".join(_summary(counts)), _mostly_lost(counts), counts.texts)


def _session(plan: Plan, out: Path, inside: Inside, *, seen: bool) -> Outcome:
    """All that a recording does with the mount. Raises OSError, ClickException: before any page."""
    before = _Before(plan.tracing, inside.pulse)
    try:
        _set_up(plan, inside.pulse)
        outcome = _Session(plan, out, inside, seen=seen).outcome()
    except BaseException:
        if why := before.put_back():
            inside.say(_WARNING, why)
        raise
    outcome.not_put_back = before.put_back()
    return outcome


# --- and who waits for it -----------------------------------------------------------------------


class _Watch:
    """Waits for a recording, and for what ends it: nothing here touches the mount."""

    def __init__(self, apart: Apart, ending: Ending, *, seen: bool) -> None:
        self._apart, self._ending, self._seen = apart, ending, seen
        self.collecting = self._recording = False
        self._outcome: Outcome | None = None
        self._poll = select.poll()
        self._poll.register(apart, select.POLLIN)
        self._poll.register(ending.wake, select.POLLIN)

    def _hear(self) -> None:
        what, value = self._apart.hear()
        if what == _COLLECTING:
            self.collecting = True
        elif what == _RECORDING:
            self._recording = True
            self._ending.go()
        elif what == _PROGRESS:
            line = value[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r{line}\033[K", err=True, nl=False)
        elif what == _WARNING:
            _say(value)
        else:
            self._outcome = value

    def _follow(self) -> Outcome:
        while self._outcome is None:
            self._ending.look()
            if self._ending.due:
                self._apart.stop()
            # While it records it may wait for ever: for events.
            checked = self._apart.stopped or not self._recording
            if self._apart.fileno() in self._apart.wait(self._poll, checked=checked):
                self._hear()
        return self._outcome

    def outcome(self, path: Path) -> Outcome:
        """Of the recording of the mount at `path`, at its end. Raises what that raises."""
        try:
            return self._follow()
        except HangsError as error:
            return Outcome(f"{path}: {error}, and is left as it is")
        except EOFError:
            return Outcome(f"{path}: who recorded was killed, and the mount is left as it is")
        finally:
            if self._seen:
                click.echo("\r\033[K", err=True, nl=False)  # nothing of it stays


def _save(plan: Plan, out: Path, outcome: Outcome) -> int:
    """Write the file. Gives the bytes of pages in it.

    Raises OSError that says how much of it has fitted, ClickException when there is nothing to
    keep of what has failed.
    """
    writer = TraceDatWriter(out, plan.nr_cpus, collected=True)
    kept = sum(writer.sizes)
    if outcome.failed and not kept:
        writer.abandon()
        out.unlink(missing_ok=True)
        raise click.ClickException(outcome.failed)
    stats = {**plan.metadata.stats, **outcome.stats}
    writer.close(replace(plan.metadata, stats=stats))
    return kept


def _larger(plan: Plan) -> str:
    """Advice."""
    now = "" if plan.size_kb is None else f" than {plan.size_kb}"
    return f"; most of the events were lost: a larger buffer{now} (-b KB) keeps more"


def _tell(plan: Plan, out: Path, outcome: Outcome, kept: int) -> None:
    """What there was, and what went wrong."""
    if outcome.not_put_back:
        _say(outcome.not_put_back)
    if outcome.failed:
        _say(f"{outcome.failed}; the {kept} bytes of pages before are in {out}")
    else:
        click.echo(outcome.summary, err=True, nl=False)
        advice = _larger(plan) if outcome.mostly_lost else ""
        click.echo(f"{out}: {kept} bytes of pages{advice}", err=True)


def _begin(plan: Plan, out: Path, ending: Ending, *, seen: bool) -> Apart:
    def work(inside: Inside) -> Outcome:
        ending.disown()
        return _session(plan, out, inside, seen=seen)

    return Apart(work)


def _record(plan: Plan, out: Path, command: Sequence[str]) -> int:
    """Exit status."""
    _enough_files(len(plan.cpus))
    seen = sys.stderr.isatty()
    with ending_of(command) as ending:
        apart = _begin(plan, out, ending, seen=seen)
        watch = _Watch(apart, ending, seen=seen)
        try:
            outcome = watch.outcome(plan.tracing.path)
        except BaseException:
            if watch.collecting:
                TraceDatWriter(out, plan.nr_cpus).abandon()
                out.unlink(missing_ok=True)
            raise
        finally:
            apart.end()
        if not watch.collecting:
            raise click.ClickException(outcome.failed)
        _tell(plan, out, outcome, _save(plan, out, outcome))
        failed = bool(outcome.failed or outcome.not_put_back)
        return ending.status() or (_FAILED if failed else 0)


def _uname() -> tuple[str, str, str, str]:
    names = os.uname()
    return names.sysname, names.nodename, names.release, names.machine


@click.command(
    "record",
    short_help="Record what happens, into a trace.dat.",
    epilog=_EPILOG,
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "-o", "--output", "out", metavar="FILE", default="trace.dat", show_default=True,
    type=click.Path(path_type=Path, dir_okay=False), help="What to write.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite what is at FILE.")
@click.option(
    "-e", "--event", "events", metavar="EVENT", multiple=True,
    help="Which events; can be given again. Without it: those that are on, or else all.",
)  # fmt: skip
@click.option(
    "-b", "--buffer-size", "size_kb", metavar="KB", type=click.IntRange(min=1),
    help="KiB of the buffer of each CPU while it records.",
)  # fmt: skip
@click.option("--cpu", metavar="LIST", help="Which CPUs, as in 0,2-4. Without it: all.")
@mount_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(  # noqa: PLR0913 (one per option)
    *,
    out: Path,
    force: bool,
    events: tuple[str, ...],
    size_kb: int | None,
    cpu: str | None,
    mount: str | None,
    command: tuple[str, ...],
) -> int:
    """Record events into a trace.dat while COMMAND runs, or until ^C.

    What was unread before is forgotten; others that consume at the same time take events away.
    Size, events and tracing_on are put back at the end. The file is for hyptrace report and
    convert, and for trace-cmd and KernelShark, none of which has to be there now.

    At the end each CPU says how many events it had, and how many were lost: overwritten before
    they could be read. -b helps against that.

    A mount that dies, or that does not answer for 5 s when it starts or ends, is given up and
    left as it is; what was captured is in the file.
    """
    if status := _cannot_run(command):
        return status

    def plan(pulse: Pulse) -> Plan:
        with pulse:
            tracing = Tracing(find_mount(mount))
        with pulse:
            wanted, cpus = _events(tracing, events), _cpus(tracing, cpu)
        with pulse:
            nr_cpus = max(tracing.cpus()) + 1
        with pulse:
            metadata = read_metadata(tracing.path, uname=" ".join(_uname()))
        return Plan(tracing, wanted, cpus, nr_cpus, size_kb, metadata)

    planned = answer(plan)
    _ask_for(out, force=force)
    return _record(planned, out, command)
