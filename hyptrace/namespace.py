"""A mount namespace of our own, and mounts in it: unshare(2), mount(2), umount2(2).

By ctypes: Python has os.unshare() from 3.12 only, and no mount(); and a chain of unshare(1)
and mount(1) would say in their words, a program each, what went wrong in ours.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import click

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CLONE_NEWUSER = 0x10000000

_MS_BIND = 1 << 12  # linux/mount.h
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def _call(function: Callable[..., int], *arguments: object, what: str) -> None:
    if function(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, fs_type: str = "", flags: int = 0, options: str = "") -> None:
    words = (os.fsencode(word) for word in (source, target, fs_type))
    _call(_libc.mount, *words, flags, os.fsencode(options), what=target)


def bind(source: Path, target: Path) -> None:
    """`source`, a file or directory, stands at `target`. Raises OSError."""
    _mount(str(source), str(target), flags=_MS_BIND)


def mount_new(fs_type: str, target: Path, options: str = "") -> None:
    """A file system of its own at `target`. Raises OSError."""
    _mount(fs_type, str(target), fs_type, options=options)


def unmount(target: Path) -> None:
    """`target` is what was beneath; what is still bound from there stays."""
    _call(_libc.umount2, os.fsencode(target), _MNT_DETACH, what=str(target))


def _unshare(flags: int) -> None:
    _call(_libc.unshare, flags, what="unshare")


def _enter_as_user() -> None:
    """As unshare -rm: as root of a user namespace, one may mount in it."""
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
    for name, text in (
        ("setgroups", "deny"),  # or the kernel takes no gid_map of a user
        ("uid_map", f"0 {user} 1"),
        ("gid_map", f"0 {group} 1"),
    ):
        Path("/proc/self", name).write_text(text, encoding="ascii")


def _enter() -> None:
    try:
        _unshare(_CLONE_NEWNS)
    except PermissionError:
        _enter_as_user()
    _mount("none", "/", flags=_MS_REC | _MS_SLAVE)


def enter() -> None:
    """From now on, what this process mounts is seen by it and its children only.

    Mounts that others make still arrive here, but none of ours goes anywhere.
    """
    try:
        _enter()
    except OSError as error:
        raise click.ClickException(
            f"exec needs a mount namespace, and this machine gives you none ({error.strerror}): "
            "run it as root, or allow user namespaces"
        ) from None
