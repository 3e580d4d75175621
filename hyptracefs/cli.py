"""The command `hyptracefs`, also as mount(8) calls it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hypervisor_model.cli import VersionAction
from hyptracefs import daemon
from hyptracefs.mounts import (
    MountError,
    check_fuse,
    check_mounted,
    check_mountpoint,
    clear_dead_mounts,
)
from hyptracefs.options import Options, UsageError, fuse_options_help, options_help, parse_options
from hyptracefs.sources import SOURCES, canonical_source, check_choices, source_of

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130  # as shells have it: 128 + SIGINT

_DESCRIPTION = "Mount the trace buffers of a hypervisor as a tracefs."
_EPILOG = f"""\
sources:
{chr(10).join(f"  {name:<18}{what}" for name, what in SOURCES.items())}

mount options:
{options_help()}
  and of mount.fuse3(8): {fuse_options_help()}

examples:
  hyptracefs model /mnt/hyp -o cpus=4
  mount -t fuse.hyptracefs model /mnt/hyp -o workload=idle
  hyp-model --listen /run/hyp.sock & hyptracefs unix:/run/hyp.sock /mnt/hyp
  umount /mnt/hyp

  cd /mnt/hyp/hypervisor
  echo 1 > events/enable; echo 1 > tracing_on; cat trace_pipe

exit status:
  0  mounted (with -f: served, and unmounted)
  1  could not be mounted
  2  wrong usage
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see hyptracefs --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hyptracefs",
        usage="hyptracefs SOURCE MOUNTPOINT [-o OPTION[,OPTION...]] [-f] [-d]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="what writes the buffers (see below)")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="a directory")
    parser.add_argument(
        "-o", dest="options", metavar="OPTION[,...]", action="append", default=[],
        help="mount options (see below)",
    )  # fmt: skip
    parser.add_argument("-f", dest="foreground", action="store_true", help="stay in the foreground")
    parser.add_argument(
        "-d", dest="debug", action="store_true", help="log each request; implies -f"
    )
    parser.add_argument("-V", "--version", action=VersionAction)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


def _serve(arguments: argparse.Namespace, options: Options, ready: Callable[[], None]) -> None:
    # A model starts beside us, while we import.
    source = source_of(arguments.source, options)
    # Late: the parent of a daemon needs neither trio nor pyfuse3.
    from hyptracefs.serve import MountRequest, serve  # noqa: PLC0415

    serve(MountRequest(source, arguments.source, arguments.mountpoint, options), ready)


def _in_background(arguments: argparse.Namespace) -> int:
    options = [f"-o{text}" for text in arguments.options]
    status = daemon.start([arguments.source, arguments.mountpoint, *options])
    if status == 0:
        check_mounted(arguments.mountpoint)
    return status


def _serve_in_background(arguments: argparse.Namespace, options: Options) -> None:
    handler = daemon.log_handler(options.log)

    def ready() -> None:
        daemon.set_up_log(logging.INFO, handler)
        daemon.tell_ready(arguments.ready_fd)

    _serve(arguments, options, ready)


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    arguments.mountpoint = os.path.realpath(arguments.mountpoint)
    options = parse_options(arguments.options)
    arguments.source = canonical_source(arguments.source)
    check_choices(arguments.source, options)

    if arguments.ready_fd is not None:
        _serve_in_background(arguments, options)
        return 0
    foreground = arguments.foreground or arguments.debug
    if foreground:
        level = logging.DEBUG if arguments.debug else logging.INFO
        daemon.set_up_log(level, logging.StreamHandler())
    check_fuse()
    clear_dead_mounts(arguments.mountpoint)
    check_mountpoint(arguments.mountpoint)
    if not foreground:
        return _in_background(arguments)
    tell_systemd = daemon.systemd_notifier()

    def ready() -> None:
        logging.info("mounted at %s", arguments.mountpoint)
        tell_systemd(f"READY=1\nSTATUS=mounted at {arguments.mountpoint}")

    _serve(arguments, options, ready)
    return 0


def _what(error: Exception) -> str:
    """Ours say who and why in strerror; those of the system name a file."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 mounted, 1 could not be mounted, 2 wrong usage."""
    try:
        return _run(argv)
    except UsageError as error:
        status, message = _USAGE, str(error)
    except (MountError, OSError, RuntimeError) as error:
        status, message = _FAILED, _what(error)
    except KeyboardInterrupt:
        status, message = _INTERRUPTED, "interrupted"
    print(daemon.for_stderr(f"hyptracefs: {message}", logging.ERROR), file=sys.stderr)  # noqa: T201
    return status
