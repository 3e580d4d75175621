"""`hyptrace convert`: a capture as what other engines read."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from hyptrace.capture import Capture
from hyptrace.decoder import Batch, CpuCount, Style
from hyptrace.inputs import decoder_of, open_capture
from hyptrace.lines import LineSink
from hyptrace.output import STDOUT, OutFile
from hyptrace.parquet_out import ParquetSink, Partition
from hyptrace.perfetto_out import PerfettoSink
from hyptrace.progress import progress


class Sink(Protocol):
    """What takes all batches of a capture."""

    def add(self, batch: Batch) -> None:
        """Take the events of `batch`."""

    def close(self, counts: Sequence[CpuCount]) -> None:
        """There are no more."""

    def abandon(self) -> None:
        """There will be no more: what has been taken is to be kept."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a capture."""

    out: Path
    force: bool
    partition: Partition | None


def _lines(style: Style) -> Callable[[Capture, Request], Sink]:
    return lambda capture, request: LineSink(
        capture, OutFile(request.out, force=request.force), style
    )


def _perfetto(capture: Capture, request: Request) -> Sink:
    return PerfettoSink(capture, OutFile(request.out, force=request.force))


def _parquet(capture: Capture, request: Request) -> Sink:
    if str(request.out) == STDOUT:
        raise click.UsageError("parquet is a directory, and cannot go to stdout")
    return ParquetSink(capture, request.out, request.partition, force=request.force)


FORMATS: dict[str, Callable[[Capture, Request], Sink]] = {
    "perfetto": _perfetto,
    "parquet": _parquet,
    "csv": _lines(Style.CSV),
    "json": _lines(Style.JSON),
    "text": _lines(Style.TRACE_PIPE),
}

_BY_SUFFIX = {
    ".pftrace": "perfetto", ".perfetto-trace": "perfetto", ".parquet": "parquet", ".csv": "csv",
    ".json": "json", ".jsonl": "json", ".txt": "text",
}  # fmt: skip


def _format_of(out: Path, wanted: str | None) -> str:
    found = wanted or _BY_SUFFIX.get(out.suffix)
    if found is None:
        raise click.UsageError(f"what format is {out}? say --to {'|'.join(FORMATS)}")
    return found


def say_notes(capture: Capture, counts: Sequence[CpuCount]) -> None:
    """Tell what of a capture could not be used."""
    for note in capture.notes:
        click.echo(f"hyptrace: {capture.path}: {note}", err=True)
    for each in counts:
        for nr, what in (
            (each.broken_pages, "pages make no sense; the rest of each was not used"),
            (each.odd_events, "events are of an unknown id, or too short"),
        ):
            if nr:
                click.echo(f"hyptrace: {capture.path}: CPU {each.cpu}: {nr} {what}", err=True)


def feed(capture: Capture, sinks: Sequence[Sink], label: str) -> list[CpuCount]:
    """Pass all of `capture` through `sinks`."""
    decoder = decoder_of(capture)
    try:
        with progress(capture.size, label) as shown:
            for batch in decoder.batches():
                for sink in sinks:
                    sink.add(batch)
                shown.at(decoder.read)
        counts = decoder.counts()
        for sink in sinks:
            sink.close(counts)
    except BaseException:  # also when interrupted
        for sink in sinks:
            with contextlib.suppress(OSError):
                sink.abandon()
        raise
    return counts


_SAFE = re.compile(r"[^A-Za-z0-9_.-]")


def _partition(capture: Capture, path: Path, host: str | None, day: str | None) -> Partition:
    modified = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date()
    name = _SAFE.sub("_", host or capture.metadata.node or "unknown")
    return Partition(name, day or modified.isoformat())


_EPILOG = """\
\b
IN is
  a trace.dat of trace-cmd, version 6 or 7
  a directory with cpuN.raw (what trace_pipe_raw gave) and a copy of the mount's events/
  the text of a trace_pipe

\b
OUT is a file, - for stdout, or for parquet a directory.

\b
Examples:
  hyptrace convert trace.dat trace.pftrace          open it in ui.perfetto.dev
  hyptrace convert trace.dat trace.parquet          a directory of tables, for DuckDB or Spark
  hyptrace convert trace.dat /lake --to parquet --partition
  hyptrace convert trace.dat - --to json | jq .
"""


@click.command("convert", epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--to", type=click.Choice(list(FORMATS)), help="Format; else as OUT's suffix says.")
@click.option("--force", is_flag=True, help="Overwrite what is at OUT.")
@click.option("--buffer", metavar="NAME", help="Of a trace.dat: the instance; else the largest.")
@click.option("--partition", is_flag=True, help="Parquet: below host=NAME/day=DATE.")
@click.option("--host", metavar="NAME", help="For --partition; else as the capture says.")
@click.option(
    "--day", metavar="DATE", help="For --partition; else when the capture was last written to."
)
def command(  # noqa: PLR0913, PLR0917 - one for each option
    source: Path,
    out: Path,
    to: str | None,
    force: bool,
    buffer: str | None,
    partition: bool,
    host: str | None,
    day: str | None,
) -> int:
    """Convert a capture: Perfetto, Parquet, CSV, JSON, text."""
    kind = _format_of(out, to)
    capture = open_capture(source, buffer)
    if out.exists() and out.samefile(source):
        raise click.UsageError("OUT is IN")
    where = _partition(capture, source, host, day) if partition else None
    sink = FORMATS[kind](capture, Request(out, force, where))
    counts = feed(capture, [sink], f"{kind} of {source.name}")
    say_notes(capture, counts)
    sys.stdout.flush()
    return 0
