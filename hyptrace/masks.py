"""What stands where in the namespace of `hyptrace exec` (TOOLS 1.4).

Tools trace at the first mount of type tracefs that the mount table shows, or mount one. So
there must be one, and the mount of hyptracefs must lie over it: path resolution ends there.
A bind mount where there is no tracefs is worse than nothing: trace-cmd mounts the kernel's
on top of it, and traces the wrong machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from hyptrace.namespace import bind, mount_new, unmount
from hyptracefs.mount_table import mounts

_TRACING = Path("/sys/kernel/tracing")
_TRACEFS = "tracefs"


def _possible_cpus(tracing: Path) -> str:
    """Those of the hypervisor, as cpu/possible lists them."""
    cpus = sum(1 for _ in (tracing / "per_cpu").glob("cpu[0-9]*"))
    return f"0-{cpus - 1}\n" if cpus > 1 else "0\n"


# Files of the machine that tools change, or take for those of what they trace; and what
# stands for them, by their path and the tracing directory.
_STAND_INS: dict[Path, Callable[[Path, Path], str]] = {
    # trace-cmd writes 1 there, and gives up when that fails.
    Path("/proc/sys/kernel/ftrace_enabled"): lambda _path, _tracing: "1\n",
    # trace-cmd writes 0 there for a while: the addresses of all the machine, for all to see.
    Path("/proc/sys/kernel/kptr_restrict"): lambda path, _tracing: path.read_text("ascii"),
    # sysconf(_SC_NPROCESSORS_CONF): with less, CPUs are left out; with more, trace-cmd fails.
    Path("/sys/devices/system/cpu/possible"): lambda _path, tracing: _possible_cpus(tracing),
}


def _is_reachable(directory: Path) -> bool:
    """Below /sys/kernel/debug it is not, for users; nor is it then for their tools."""
    try:
        return directory.is_dir()
    except PermissionError:
        return False


def _tracing_directories() -> list[Path]:
    """Where tools look: each tracefs, and the usual place. At least one tracefs is there."""
    places = [Path(mount.mountpoint) for mount in mounts() if mount.fs_type == _TRACEFS]
    if not places:
        _mount_tracefs()
    # Perfetto does not ask the mount table.
    return [place for place in dict.fromkeys([*places, _TRACING]) if _is_reachable(place)]


def _mount_tracefs() -> None:
    try:
        mount_new(_TRACEFS, _TRACING)
    except OSError as error:
        raise click.ClickException(
            "tools look for a mount of type tracefs; there is none, and none can be made here "
            f"({error.strerror}): as root, once: mount -t tracefs nodev {_TRACING}"
        ) from None


@contextmanager
def _scratch(where: Path) -> Iterator[Path]:
    """A directory for files that are bound elsewhere meanwhile, and gone with the namespace."""
    mount_new("tmpfs", where, "mode=755")
    yield where
    unmount(where)


@contextmanager
def _held(directory: Path) -> Iterator[Path]:
    """A path of `directory` that leads to it whatever is mounted over it."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


def _put_stand_ins(scratch: Path, tracing: Path) -> None:
    for path, text_of in _STAND_INS.items():
        if path.exists():
            file = scratch / path.name
            file.write_text(text_of(path, tracing), encoding="ascii")
            bind(file, path)


def _put(tracing: Path, places: Sequence[Path]) -> None:
    # They will be hidden: for now, the first of them can be a place for scratch files.
    with _scratch(places[0]) as scratch:
        _put_stand_ins(scratch, tracing)
    for place in places:
        bind(tracing, place)


def mask(directory: Path) -> None:
    """Put the mount at `directory` where tools look; in a namespace of our own.

    Raises click.ClickException or OSError.
    """
    with _held(directory) as tracing:
        _put(tracing, _tracing_directories())
    # Where we are may be hidden now: go where its name leads.
    with contextlib.suppress(OSError):
        os.chdir(os.getcwd())  # noqa: PTH109
