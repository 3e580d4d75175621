"""`hyptrace exec`: a command for which the mount is the machine's tracing directory."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

import click

from hyptrace.masks import mask
from hyptrace.mount import find_mount, mount_option
from hyptrace.namespace import enter

# As env(1).
_CANNOT_RUN = 126
_NOT_FOUND = 127

_EPILOG = """\
\b
Examples:
  hyptrace exec -- trace-cmd record -e hypervisor sleep 5
  hyptrace exec -- trace-cmd stat
  hyptrace exec -- bash

\b
Exit status: that of COMMAND; before it runs:
  1    no mount, or no namespace to put it into; one line on stderr says why
  2    wrong usage
  126  COMMAND cannot be run
  127  COMMAND is not found
"""


def _become(command: tuple[str, ...]) -> NoReturn:
    # Python ignores these for itself, and what we become would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606


def _run(command: tuple[str, ...]) -> int:
    """Exit status of `command` if it could not be run; otherwise we are no more."""
    try:
        _become(command)
    except OSError as error:
        click.echo(f"hyptrace: {command[0]}: {error.strerror}", err=True)
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN


@click.command(
    short_help="Run a command that takes the mount for the machine's tracefs.",
    epilog=_EPILOG,
    context_settings={"allow_interspersed_args": False},
)
@mount_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(mount: str | None, command: tuple[str, ...]) -> int:
    """Run COMMAND where tools find the mount when they look for the kernel's tracefs.

    trace-cmd, libtracefs, Perfetto and others know no option for that: they trace what the
    mount table calls tracefs. COMMAND sees a mount table of its own, in which the mount
    stands there, and in which the three files of the machine that such tools change or
    count CPUs by (ftrace_enabled, kptr_restrict, cpu/possible) are stand-ins. Nothing
    changes for anybody else, and nothing is left when COMMAND has ended.

    Users other than root get a user namespace, in which they look like root; their machine
    has to allow that, and has to have mounted a tracefs.
    """
    directory = find_mount(mount)
    enter()
    mask(directory)
    return _run(command)
