"""`hyptrace status`: what is mounted, and what it is doing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click

from hyptrace.mount import mount_option, named_mount
from hyptrace.tracing import Tracing
from hyptracefs.mount_table import FS_TYPE, mounts

# How long a mount may take to answer before it is said to hang.
_PATIENCE_S = 2.0
_PIECE = 1 << 16

ALIVE, DEAD, HANGS, DENIED, BROKEN = "alive", "dead", "hangs", "denied", "broken"

_STATES = {
    errno.ENOTCONN: DEAD,
    errno.ECONNABORTED: DEAD,
    errno.EACCES: DENIED,
}
_REMEDIES = {
    DEAD: "its server has ended; remove it, with: umount -l {where}",
    HANGS: "its server does not answer; see what it does, or remove it, with: umount -l {where}",
    DENIED: "mounted by another user; mount it with -o allow_other,uid={uid}",
    BROKEN: "{why}",
}

_EPILOG = """\
\b
Examples:
  hyptrace status
  hyptrace status --json | jq '.[] | select(.state == "dead").mountpoint'

\b
A mount is alive; dead (its server has ended); hangs (it has not answered for 2 s); denied (of
another user); or broken. Counters are those of the file `statistics`: to read it is a
hypercall, which is traced if hyp_enter is on.

\b
Exit status:
  0  said, also if there is no mount
  1  DIR is no mount of hyptracefs
  2  wrong usage
"""


@dataclass
class Status:
    """What is known of a mount; `answer` is what it says itself, if it is alive."""

    mountpoint: str
    source: str
    device: str
    also_at: list[str] = field(default_factory=list)
    state: str = ALIVE
    why: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As --json has it."""
        own = {"mountpoint": self.mountpoint, "also_at": self.also_at, "source": self.source,
               "device": self.device, "state": self.state}  # fmt: skip
        return {**own, **({"why": self.why} if self.why else {}), **self.answer}


def _found() -> list[Status]:
    """Our mounts, each once; where one is bound to is also where it is."""
    found: dict[str, Status] = {}
    for mount in mounts():
        if mount.fs_type != FS_TYPE:
            continue
        if mount.device in found:
            found[mount.device].also_at.append(mount.mountpoint)
        else:
            found[mount.device] = Status(mount.mountpoint, mount.source, mount.device)
    return list(found.values())


# --- asking ------------------------------------------------------------------------------------


def _ask(path: str) -> dict[str, Any]:
    """What the mount at `path` says. Raises OSError; blocks where it hangs."""
    tracing = Tracing(Path(path))
    statistics = tracing.statistics()
    host = statistics.pop("host", {})
    return {
        "name": tracing.name,
        "cpus": len(tracing.cpus()),
        "loaded": bool(host.get("loaded", tracing.loaded)),
        "tracing_on": bool(host.get("tracing_on", tracing.on)),
        "readers": host.get("readers", 0),
        "waiting": host.get("waiting", 0),
        "buffer_size_kb": tracing.size_kb,
        "events": tracing.enabled(),
        "hypervisor": statistics.pop("hypervisor", {}),
        "counters": statistics,
    }


def _answer(path: str) -> dict[str, Any]:
    try:
        return {"state": ALIVE, "answer": _ask(path)}
    except OSError as error:
        return {"state": _STATES.get(error.errno or 0, BROKEN), "why": error.strerror}
    except (ValueError, LookupError) as error:
        return {"state": BROKEN, "why": f"what it says makes no sense: {error}"}


def _child(path: str, out: int) -> NoReturn:
    """Ask, and say it at `out`. In a process of its own: one that hangs cannot be ended here."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(out, "w", encoding="utf-8") as file:
            json.dump(_answer(path), file)
    finally:
        os._exit(0)


@dataclass
class _Asked:
    status: Status
    pid: int
    file: int
    text: bytes = b""


def _start(status: Status) -> _Asked:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _child(status.mountpoint, theirs)
    os.close(theirs)
    return _Asked(status, pid, ours)


def _collect(asked: Sequence[_Asked], patience_s: float) -> None:
    """Take what they say, until all have said it, or for `patience_s`."""
    by_file = {each.file: each for each in asked}
    deadline = time.monotonic() + patience_s
    while by_file:
        left = deadline - time.monotonic()
        ready, _, _ = select.select(list(by_file), [], [], max(left, 0))
        if not ready:
            return
        for file in ready:
            piece = os.read(file, _PIECE)
            by_file[file].text += piece
            if not piece:
                del by_file[file]


def _end(asked: _Asked) -> None:
    os.close(asked.file)
    with contextlib.suppress(ProcessLookupError):
        os.kill(asked.pid, signal.SIGKILL)
    # One that even this does not end is left to init: we do not wait.
    os.waitpid(asked.pid, os.WNOHANG)


def _take(asked: _Asked) -> None:
    try:
        said = json.loads(asked.text)
    except ValueError:
        said = {"state": HANGS, "why": f"no answer for {_PATIENCE_S:g} s"}
    asked.status.state = said["state"]
    asked.status.why = said.get("why", "")
    asked.status.answer = said.get("answer", {})


def ask_all(found: Sequence[Status], patience_s: float = _PATIENCE_S) -> None:
    """Ask all mounts at once; none can keep us for longer than `patience_s`."""
    asked = [_start(each) for each in found]
    try:
        _collect(asked, patience_s)
    finally:
        for each in asked:
            _end(each)
    for each in asked:
        _take(each)


# --- saying --------------------------------------------------------------------------------------


def _switches(answer: dict[str, Any]) -> str:
    loaded = "loaded" if answer["loaded"] else "unloaded"
    tracing = "tracing" if answer["tracing_on"] else "not tracing"
    return f"{loaded}, {tracing}, {answer['readers']} readers ({answer['waiting']} waiting)"


def _cpu_lines(answer: dict[str, Any]) -> Iterator[str]:
    for cpu in range(answer["cpus"]):
        host = answer["counters"].get(f"host cpu{cpu}")
        if host:
            names = ("entries", "read", "unread", "overrun", "lost", "dropped")
            yield f"cpu{cpu}  " + "  ".join(f"{name} {host.get(name, 0)}" for name in names)


def _calls(answer: dict[str, Any]) -> str:
    rows = [row for about, row in answer["counters"].items() if about.startswith("hypercall ")]
    made, failed = (sum(int(row.get(name, 0)) for row in rows) for name in ("calls", "errors"))
    return f"{made} hypercalls, {failed} with errors"


def _alive_lines(answer: dict[str, Any]) -> Iterator[str]:
    state = answer["hypervisor"].get("state", "unknown")
    yield f"hypervisor  {answer['name']}: {state}, {answer['cpus']} CPUs"
    yield f"buffers     {answer['buffer_size_kb']} KiB per CPU, {_switches(answer)}"
    yield f"events on   {' '.join(answer['events']) or 'none'}"
    if state == "present":
        shared = answer["hypervisor"].get("pages_shared", 0)
        yield f"counted     {_calls(answer)}, {shared} pages shared"
    yield from _cpu_lines(answer)


def status_lines(status: Status) -> Iterator[str]:
    """What people read of a mount."""
    yield f"{status.mountpoint}  {status.source}  {status.state}"
    if status.also_at:
        yield f"    also at     {' '.join(status.also_at)}"
    if status.state == ALIVE:
        yield from (f"    {line}" for line in _alive_lines(status.answer))
    else:
        remedy = _REMEDIES[status.state]
        yield "    " + remedy.format(where=status.mountpoint, uid=os.getuid(), why=status.why)


def _say(found: Sequence[Status], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([each.as_json() for each in found], indent=2))
        return
    if not found:
        click.echo("no hyptracefs is mounted here: mount one, with: hyptracefs model /mnt/hyp")
    click.echo("\n\n".join("\n".join(status_lines(each)) for each in found), nl=bool(found))


@click.command("status", short_help="What is mounted where, and what it is doing.", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list of mounts.")
@mount_option
def command(as_json: bool, mount: str | None) -> None:
    """Say of each mount of hyptracefs where it is, what it is attached to, and what it does.

    Loaded or not, tracing or not, readers, size of the buffers, which events are on, and what
    hypervisor and host have counted. With --mount, of that one only. A mount that is dead, or
    that hangs, is said to be so, and keeps nobody waiting.
    """
    found = _found()
    if mount is not None:
        device = named_mount(mount).device
        found = [each for each in found if each.device == device]
    sys.stdout.flush()
    ask_all(found)
    _say(found, as_json=as_json)
