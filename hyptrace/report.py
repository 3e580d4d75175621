"""`hyptrace report`: a capture for people."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hyptrace.convert import Sink, feed, say_notes
from hyptrace.decoder import Style
from hyptrace.html_out import HtmlSink
from hyptrace.inputs import open_capture
from hyptrace.lines import LineSink
from hyptrace.output import STDOUT, OutFile
from hyptrace.statistics import StatisticsSink, statistics_text

_EPILOG = """\
\b
IN is what hyptrace convert takes: a trace.dat, a directory of raw pages, or a text.

\b
Examples:
  hyptrace report trace.dat | less                 as trace_pipe would have printed it
  hyptrace report trace.dat --stats                time in the hypervisor by reason
  hyptrace report trace.dat --html trace.html      the same as a page, with a timeline
"""


@click.command("report", epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("--stats", is_flag=True, help="Count and time, instead of the events.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page.")
@click.option("--force", is_flag=True, help="Overwrite what is at FILE.")
@click.option("--buffer", metavar="NAME", help="Of a trace.dat: the instance; else the largest.")
def command(source: Path, stats: bool, html: Path | None, force: bool, buffer: str | None) -> int:
    """Show a capture: text, statistics, or a page."""
    capture = open_capture(source, buffer)
    sinks: list[Sink] = []
    statistics = StatisticsSink(capture)
    if stats or html:
        sinks.append(statistics)
    if html and html.exists() and html.samefile(source):
        raise click.UsageError("FILE is IN")
    if html:
        sinks.append(HtmlSink(capture, OutFile(html, force=force), statistics))
    if not sinks:
        sinks.append(LineSink(capture, OutFile(Path(STDOUT)), Style.TRACE_PIPE))
    counts = feed(capture, sinks, f"report of {source.name}")
    if stats:
        click.echo("".join(statistics_text(statistics)), nl=False)
    say_notes(capture, counts)
    sys.stdout.flush()
    return 0
