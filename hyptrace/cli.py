"""The command `hyptrace`: its subcommands, exit statuses, and how errors are said.

A subcommand is a module that holds a click.Command named `command`, and a row of SUBCOMMANDS;
it is imported when it is called, or listed. It returns its exit status, or None for 0. When it
fails it raises click.ClickException or OSError (status 1); for wrong usage, click.UsageError
(status 2). Either is said in one line.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

SUBCOMMANDS = {
    "convert": "hyptrace.convert",
    "exec": "hyptrace.exec",
    "record": "hyptrace.record",
    "report": "hyptrace.report",
    "status": "hyptrace.status",
    "top": "hyptrace.top",
}

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130  # as shells have it: 128 + SIGINT

_NAME = "hyptrace"


class _Subcommands(click.Group):
    """Imports those that are asked for, and no others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in SUBCOMMANDS:
            return None
        command = importlib.import_module(SUBCOMMANDS[cmd_name]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{SUBCOMMANDS[cmd_name]}.command is no click.Command")
        return command


_EPILOG = """\
\b
Examples:
  hyptracefs model /mnt/hyp
  hyptrace status
  hyptrace record -e hyp_enter -e hyp_exit sleep 5
  hyptrace report trace.dat --stats
  hyptrace exec -- trace-cmd record -e hypervisor sleep 5

\b
Exit status:
  0  done
  1  failed; one line on stderr says why, and what to do
  2  wrong usage
  exec, record: that of the command that they run
"""


@click.command(
    cls=_Subcommands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="hyptracefs", message="%(version)s")
def hyptrace() -> None:
    """Trace a hypervisor whose buffers hyptracefs has mounted."""


@hyptrace.result_callback()
def _write_out(status: int | None) -> int | None:
    """Here, where click still looks: it ends us, with 1 and no word, when nobody reads any more."""
    sys.stdout.flush()
    return status


def _explain(error: OSError) -> str:
    why = error.strerror or str(error)
    return f"{error.filename}: {why}" if error.filename else why


def _say(message: str) -> None:
    click.echo(f"{_NAME}: {' '.join(message.split())}", err=True)


def _say_usage(error: click.UsageError) -> None:
    path = error.ctx.command_path if error.ctx else _NAME
    _say(f"{error.format_message().rstrip('.')} (see {path} --help)")


def _run(argv: Sequence[str] | None) -> int:
    status = hyptrace.main(
        args=None if argv is None else list(argv), prog_name=_NAME, standalone_mode=False
    )
    return status or 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage."""
    try:
        return _run(argv)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return _USAGE
    except click.UsageError as error:
        _say_usage(error)
        return _USAGE
    except click.ClickException as error:
        _say(error.format_message())
        return _FAILED
    except OSError as error:
        _say(_explain(error))
        return _FAILED
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return _INTERRUPTED
