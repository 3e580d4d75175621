"""`hyptrace record`: what happens, into a trace.dat."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from hyptrace.capture import Metadata, read_metadata
from hyptrace.held_command import CANNOT_RUN, NOT_FOUND
from hyptrace.mount import find_mount, mount_option
from hyptrace.output import refuse_existing
from hyptrace.recorder import Ending, MountDiedError, Recorder, ending_of
from hyptrace.trace_dat_writer import TraceDatWriter
from hyptrace.tracing import CpuCounters, Tracing, matching, parse_cpus, parse_stats

_FAILED = 1
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)

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
    """What to record, and into what."""

    tracing: Tracing
    out: Path
    events: Sequence[str]
    cpus: Sequence[int]
    size_kb: int | None


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


def _restore(steps: Sequence[tuple[str, Callable[[], None]]]) -> bool:
    """Take all `steps`, also after one that fails; whether none has. Says which."""
    failed = []
    for what, step in steps:
        try:
            step()
        except OSError as error:
            if error.errno not in _DEAD:  # where there is nothing to put back
                failed.append((what, error))
    if failed:
        whats = ", ".join(what for what, _ in failed)
        _say(f"not put back: {whats}: {failed[0][1].strerror}")
    return not failed


@contextmanager
def _restored(tracing: Tracing) -> Iterator[list[bool]]:
    """Puts back size, events and tracing_on; whether that went well is in the list afterwards."""
    enabled, size_kb, on = tracing.enabled(), tracing.size_kb, tracing.on
    went_well: list[bool] = []
    try:
        yield went_well
    finally:
        steps = [
            ("tracing_on", lambda: tracing.trace(on=False)),
            ("trace", tracing.forget),
            ("buffer_size_kb", lambda: _resize(tracing, size_kb)),
            ("events", lambda: tracing.enable(enabled)),
            ("tracing_on", lambda: tracing.trace(on=on)),
        ]
        went_well.append(_restore(steps))


def _resize(tracing: Tracing, size_kb: int) -> None:
    if tracing.size_kb != size_kb:
        tracing.set_size(size_kb)


def _set_up(plan: Plan) -> None:
    tracing = plan.tracing
    tracing.trace(on=False)
    tracing.forget()
    if plan.size_kb is not None:
        try:
            _resize(tracing, plan.size_kb)
        except OSError as error:
            raise click.ClickException(_why_not_resized(plan, error)) from None
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

    def __init__(self, tracing: Tracing, cpus: Sequence[int]) -> None:
        self._tracing = tracing
        self._before = {cpu: tracing.stats(cpu) for cpu in cpus}
        self.now = self._before
        self.texts: dict[int, str] = {}

    def look(self) -> None:
        """Ask them."""
        self.texts = {cpu: self._tracing.read(f"per_cpu/cpu{cpu}/stats") for cpu in self._before}
        self.now = {cpu: parse_stats(text) for cpu, text in self.texts.items()}

    def since(self, count: Callable[[CpuCounters], int]) -> dict[int, int]:
        """By CPU, by how much something has grown."""
        return {cpu: count(self.now[cpu]) - count(self._before[cpu]) for cpu in self.now}


class _Progress:
    """A line on stderr, when that is a terminal."""

    def __init__(self, counts: _Counts, recorder: Recorder) -> None:
        self._counts, self._recorder = counts, recorder
        self._began = time.monotonic()
        self._due = self._began
        self._shown = sys.stderr.isatty()

    def tick(self) -> float | None:
        """Show it if it is time to; seconds until it is again."""
        if not self._shown:
            return None
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        try:
            self._counts.look()
        except OSError as error:
            raise MountDiedError(error.errno, error.strerror) from None
        click.echo(f"\r{self._line(now)}\033[K", err=True, nl=False)
        # Of many CPUs it takes long to ask: that is time in which nothing is recorded.
        self._due = time.monotonic() + max(_PROGRESS_S, 20 * (time.monotonic() - now))
        return self._due - time.monotonic()

    def _line(self, now: float) -> str:
        events = sum(self._counts.since(lambda each: each.read).values())
        lost = self._counts.since(lambda each: each.lost)
        losers = " ".join(f"cpu{cpu}:{nr}" for cpu, nr in lost.items() if nr) or "none"
        seconds, megabytes = now - self._began, self._recorder.bytes / 1e6
        line = f"{seconds:.0f} s  {events} events  {megabytes:.1f} MB  lost {losers}"
        return line[: shutil.get_terminal_size().columns - 1]

    def end(self) -> None:
        """Nothing of it stays."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)


def _summary(counts: _Counts) -> Iterator[str]:
    dropped = counts.since(lambda each: each.dropped)
    overrun = counts.since(lambda each: each.overrun)
    for cpu, events in counts.since(lambda each: each.read).items():
        refused = f", {dropped[cpu]} dropped" if dropped[cpu] else ""
        yield f"CPU {cpu}: {events} events, {overrun[cpu]} lost{refused}\n"


# --- recording ----------------------------------------------------------------------------------


class _Session:
    """A recording under way: what has been read is in the file whatever becomes of the rest."""

    def __init__(self, plan: Plan, writer: TraceDatWriter, metadata: Metadata) -> None:
        self.failed = ""
        self._plan, self._writer, self._metadata = plan, writer, metadata
        self._recorder = Recorder(plan.tracing, plan.cpus, writer)
        self._counts = _Counts(plan.tracing, plan.cpus)
        self._progress = _Progress(self._counts, self._recorder)

    def run(self, ending: Ending) -> None:
        """Record, to the end. What goes wrong on the way is in `failed`."""
        try:
            self._plan.tracing.trace(on=True)
            ending.go()
            self._recorder.run(ending, self._progress.tick)
            self._plan.tracing.trace(on=False)
            self._recorder.drain()
            self._counts.look()
        except MountDiedError as error:
            self.failed = f"{self._plan.tracing.path}: the mount has died: {error.strerror}"
        except OSError as error:
            self.failed = f"{error.filename or self._plan.out}: {error.strerror}"
        finally:
            self._recorder.close()
            self._progress.end()

    def save(self) -> None:
        """Write the file. Raises OSError that says how much of it has fitted.

        ClickException when there is nothing to keep of what has failed.
        """
        if self.failed and not self._recorder.bytes:
            self._writer.abandon()
            self._plan.out.unlink(missing_ok=True)
            raise click.ClickException(self.failed)
        texts = {**self._metadata.stats, **self._counts.texts}
        self._writer.close(replace(self._metadata, stats=texts))

    def say(self) -> None:
        """What there was, and what went wrong."""
        if self._counts.texts and not self.failed:
            click.echo("".join(_summary(self._counts)), err=True, nl=False)
        if self.failed:
            kept = self._recorder.bytes
            _say(f"{self.failed}; the {kept} bytes of pages before are in {self._plan.out}")


def _record(plan: Plan, command: Sequence[str]) -> int:
    """Exit status."""
    metadata = read_metadata(plan.tracing.path, uname=" ".join(_uname()))
    _enough_files(len(plan.cpus))
    with ending_of(command) as ending:
        with _restored(plan.tracing) as went_well:
            _set_up(plan)
            session = _begin(plan, metadata)
            session.run(ending)
        session.save()
        session.say()
        status = ending.status()
        failed = bool(session.failed) or not all(went_well)
        return status or (_FAILED if failed else 0)


def _uname() -> tuple[str, str, str, str]:
    names = os.uname()
    return names.sysname, names.nodename, names.release, names.machine


def _begin(plan: Plan, metadata: Metadata) -> _Session:
    try:
        writer = TraceDatWriter(plan.out, max(plan.tracing.cpus()) + 1)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(plan.out)) from None
    try:
        return _Session(plan, writer, metadata)
    except OSError:
        writer.abandon()
        plan.out.unlink(missing_ok=True)
        raise


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
    """
    if status := _cannot_run(command):
        return status
    tracing = Tracing(find_mount(mount))
    plan = Plan(tracing, out, _events(tracing, events), _cpus(tracing, cpu), size_kb)
    _ask_for(out, force=force)
    return _record(plan, command)
