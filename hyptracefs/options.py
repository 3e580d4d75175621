"""Mount options: the text behind -o, as mount(8) and fstab(5) have it."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from hypervisor_model import WORKLOADS, load_workload

if TYPE_CHECKING:
    from hyptracefs.remote import Settings
    from hyptracefs.wakeup import Wakeup

# Of the top directory, as of a tracefs.
DEFAULT_MODE = 0o700
_MAX_MODE = 0o7777
_MAX_ID = 2**32 - 2


class UsageError(Exception):
    """The command line is wrong; says what and what to do."""


@dataclass(frozen=True)
class Options:
    """What can be chosen at mount."""

    cpus: int | None = None  # None: as many as this machine has, at least 2
    workload: str | None = None  # None: replay
    poll_ms: int | None = None  # None: it adapts
    wakeup: Wakeup | None = None  # None: the better one that there is
    max_buffer_mb: int | None = None  # None: a quarter of the machine's memory
    uid: int | None = None  # None: who mounts
    gid: int | None = None
    mode: int = DEFAULT_MODE  # of the top directory
    log: str | None = None  # file; None: syslog
    fuse: frozenset[str] = field(default_factory=frozenset)  # for libfuse, as they are

    @property
    def remote(self) -> Settings:
        """For each remote."""
        from hyptracefs.remote import Settings  # noqa: PLC0415 (with it comes trio: see cli.py)

        max_bytes = None if self.max_buffer_mb is None else self.max_buffer_mb << 20
        return Settings(self.poll_ms, max_bytes, self.wakeup)


class _Option(NamedTuple):
    parse: Callable[[str], object]
    metavar: str
    help: str


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"not a number from {low} to {high}")
        return int(text)

    return parse


def _id_of(kind: str, look_up: Callable[[str], int]) -> Callable[[str], int]:
    """A number or, as for mount(8), a name."""
    number = _integer(0, _MAX_ID)

    def parse(text: str) -> int:
        try:
            return number(text)
        except ValueError as error:
            try:
                return look_up(text)
            except KeyError:
                raise ValueError(f"no {kind} of this name, and {error}") from None

    return parse


_user = _id_of("user", lambda name: pwd.getpwnam(name).pw_uid)
_group = _id_of("group", lambda name: grp.getgrnam(name).gr_gid)


def _octal(text: str) -> int:
    number = int(text, 8) if text and set(text) <= set("01234567") else -1
    if not 0 <= number <= _MAX_MODE:
        raise ValueError(f"not an octal number up to {_MAX_MODE:o}")
    return number


def _wakeup(text: str) -> Wakeup:
    from hyptracefs.wakeup import Wakeup  # noqa: PLC0415 (as above)

    names = [way.value for way in Wakeup]
    if text not in names:
        raise ValueError(f"not one of {', '.join(names)}")
    return Wakeup(text)


def _workload(text: str) -> str:
    load_workload(text, cpus=1)  # or it says what is wrong, while somebody is there to read it
    return text


def _workloads() -> str:
    lines = (f"\n{'':22}{kind.usage:<22}{kind.help}" for kind in WORKLOADS.values())
    return "(default: replay)" + "".join(lines)


def _file(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return text


OPTIONS: dict[str, _Option] = {
    "cpus": _Option(_integer(1, 1024), "N", "physical CPUs of the model (default: this machine's, "
                                            "at least 2)"),
    "workload": _Option(_workload, "NAME", f"what the model's CPUs do: {_workloads()}"),
    "poll_ms": _Option(_integer(1, 10_000), "MS", "how often to look for events while a reader "
                                                  "waits, and no doorbell is to ring (default: "
                                                  "0.1 ms to 100 ms, as they come)"),
    "wakeup": _Option(_wakeup, "HOW", "doorbell: the hypervisor says when there are events, if it "
                                     "can (default without poll_ms); poll: look for them"),
    "max_buffer_mb": _Option(_integer(1, 1 << 40), "MB", "the most that the buffers of all CPUs "
                                                         "take (default: a quarter of memory)"),
    "uid": _Option(_user, "USER", "owner of the files, a number or a name (default: who mounts)"),
    "gid": _Option(_group, "GROUP", "group of the files; with allow_other, it may look in"),
    "mode": _Option(_octal, "OCTAL", f"mode of the top directory (default {DEFAULT_MODE:o})"),
    "log": _Option(_file, "FILE", "where messages go after the mount (default: syslog)"),
}  # fmt: skip

# For libfuse: given on to it, with or without a value.
_FUSE_OPTIONS = frozenset(
    [
        "allow_other",
        "allow_root",
        "auto_unmount",
        "default_permissions",
        "dirsync",
        "fsname",
        "noatime",
        "nodiratime",
        "nodev",
        "noexec",
        "nosuid",
        "ro",
        "sync",
    ]
)
# What mount(8) and fstab(5) add, with nothing to do for us.
_IGNORED_OPTIONS = frozenset(
    [
        "_netdev",
        "async",
        "atime",
        "auto",
        "defaults",
        "dev",
        "diratime",
        "exec",
        "group",
        "lazytime",
        "noauto",
        "nofail",
        "norelatime",
        "nostrictatime",
        "nouser",
        "nousers",
        "owner",
        "relatime",
        "rw",
        "strictatime",
        "suid",
        "user",
        "users",
    ]
)


def _known() -> str:
    return ", ".join([*OPTIONS, *sorted(_FUSE_OPTIONS)])


def _with(options: Options, text: str) -> Options:
    name, _, value = text.partition("=")
    if name in OPTIONS:
        try:
            return replace(options, **{name: OPTIONS[name].parse(value)})  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(f"option {name}={value}: {error}") from None
    if name in _FUSE_OPTIONS:
        return replace(options, fuse=options.fuse | {text})
    if name in _IGNORED_OPTIONS or name.startswith("x-"):
        return options
    raise UsageError(f"unknown option {name!r}: there are {_known()}")


def parse_options(texts: Iterable[str]) -> Options:
    """Options from the arguments of all -o. Raises UsageError."""
    options = Options()
    for text in texts:
        for part in filter(None, text.split(",")):
            options = _with(options, part)
    return options


def options_help() -> str:
    """A paragraph per option."""
    return "\n".join(
        f"  {f'{name}={option.metavar}':<18}{option.help}" for name, option in OPTIONS.items()
    )


def fuse_options_help() -> str:
    """The names of the options that are libfuse's."""
    return " ".join(sorted(_FUSE_OPTIONS))
