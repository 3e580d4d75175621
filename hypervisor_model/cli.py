"""`hyp-model`: the hypervisor in a process of its own."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hypervisor_model.model import Hypervisor
from hypervisor_model.workloads import WORKLOADS, load_workload

_FAILED = 1
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MIN_CPUS = 2  # the recording has two
_OWNER_ONLY = 0o600
_ANYBODY = 0o666  # may connect; who they are is looked at then
_MAX_PATH = 107  # bytes; unix(7): sun_path, with its zero byte

_EPILOG = f"""\
workloads: {", ".join(sorted(WORKLOADS))}

example:
  hyp-model --listen /run/hyp.sock --cpus 4 &
  hyptracefs unix:/run/hyp.sock /mnt/hyp

It serves one host after the other, and outlives each. SIGTERM, SIGINT and SIGHUP end it.

exit status:
  0  ended by a signal
  1  could not listen, or could not get what it needs
  2  wrong usage
"""


class VersionAction(argparse.Action):
    """Prints the version and exits: as argparse's own, but looks for it only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings, dest, nargs=0, help="show program's version number and exit"
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """As argparse calls it."""
        from importlib.metadata import version  # noqa: PLC0415 (as long as the rest of the start)

        print(version("hyptracefs"))  # noqa: T201
        parser.exit()


def default_cpus() -> int:
    """How many physical CPUs a model has if nobody says."""
    return max(_MIN_CPUS, os.cpu_count() or 1)


_MAX_CPUS = 1024


def _nr_cpus(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_CPUS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MAX_CPUS}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyp-model",
        description="A model of the nVHE hypervisor of pKVM, that writes trace events.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--listen", metavar="PATH", help="a Unix socket for hosts; made, and removed"
    )
    where.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # a host that is there already
    parser.add_argument(
        "--allow-uid", type=int, metavar="UID", help="a user, besides root and you, who may attach"
    )
    parser.add_argument("--cpus", type=_nr_cpus, default=default_cpus(), help=f"1 to {_MAX_CPUS}")
    parser.add_argument("--workload", default="replay", metavar="NAME", help="what its CPUs do")
    parser.add_argument("-V", "--version", action=VersionAction)
    return parser


def _say(message: str) -> None:
    print(f"hyp-model: {message}", file=sys.stderr, flush=True)  # noqa: T201


# --- the socket ---------------------------------------------------------------------------


def _someone_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


def _make_way(path: Path) -> None:
    """Remove a socket that a dead hypervisor has left; nothing else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, f"{path}: there is something that is not a socket")
    if _someone_listens(path):
        raise OSError(errno.EADDRINUSE, f"{path}: another hypervisor listens there")
    path.unlink()


@contextmanager
def listening(path: Path, mode: int = _OWNER_ONLY) -> Iterator[socket.socket]:
    """A listening socket at `path`, with `mode`; removed at the end."""
    if len(os.fsencode(path)) > _MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"{path}: a socket's path has {_MAX_PATH} bytes at most")
    _make_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        umask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror}") from error
        finally:
            os.umask(umask)
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)


# --- the end ------------------------------------------------------------------------------


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Signals are seen at the file that stop_on_signals() gives."""


@contextmanager
def stop_on_signals() -> Iterator[int]:
    """A file that becomes readable when a signal asks for the end."""
    told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        signal.set_wakeup_fd(tell)
        for number in _END_SIGNALS:
            signal.signal(number, _noted)
        yield told
    finally:
        signal.set_wakeup_fd(-1)
        os.close(told)
        os.close(tell)


# --- the command --------------------------------------------------------------------------


def _let_go_of_stderr() -> None:
    """From now on there is nothing to say; who has started us may wait for its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def _run(arguments: argparse.Namespace) -> None:
    workload = load_workload(arguments.workload, arguments.cpus)
    with stop_on_signals() as stop, Hypervisor(arguments.cpus, workload) as hypervisor:
        if arguments.fd is not None:
            _let_go_of_stderr()
            hypervisor.serve_host(arguments.fd, stop)
            return
        path = Path(arguments.listen)
        mode = _OWNER_ONLY
        if arguments.allow_uid is not None:
            hypervisor.allow(arguments.allow_uid)
            mode = _ANYBODY
        with listening(path, mode) as listener:
            _say(
                f"listening at {path}: {arguments.cpus} CPUs, workload {arguments.workload}, "
                f"writers: {hypervisor.writer_ordering}"
            )
            hypervisor.serve(listener.fileno(), stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 ended, 1 failed; argparse exits with 2."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except (OSError, ValueError) as error:
        _say(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
        return _FAILED
    return 0
