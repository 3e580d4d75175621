"""`hyptrace top`: what the hypervisor is doing now."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from hyptrace.mount import find_mount, mount_option
from hyptrace.sampling import CpuSample, Sample, Sampler
from hyptrace.tracing import Tracing

if TYPE_CHECKING:
    from hyptrace.top_screen import TopApp

_FAILED = 1
_LEAST_S = 0.1

_EPILOG = """\
\b
Examples:
  hyptrace top
  hyptrace top -b -n 5 -d 1                   five times plain lines, for scripts
  hyptrace top -b -n 1 | grep ' cpu=0 '

\b
Lines of -b: words NAME=VALUE behind the time; one of the mount, one per CPU, one per event.
  hyp        share of the time in the hypervisor; then the same by reason
  events/s   recorded
  lost/s     overwritten before anybody has read them; with no reader, all that is old
  fill       of the buffer, with what is unread
  seen       how much of the time is still in the buffer to be looked at: shares and the
             rates of events are of that. A larger buffer_size_kb makes it more.

\b
Keys: t tracing, space the event under the cursor, a all events, p pause, q quit.

\b
Exit status:
  0  done
  1  failed, or the mount has died; one line on stderr says why
  2  wrong usage
"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _cpu_words(each: CpuSample) -> Iterator[str]:
    shares = each.shares
    yield f"cpu={each.cpu}"
    yield f"hyp={_percent(sum(shares.values()))}"
    yield f"events/s={each.per_second(each.recorded):.0f}"
    yield f"lost/s={each.per_second(each.lost):.0f}"
    yield f"fill={_percent(each.fill)}"
    yield f"seen={_percent(each.coverage)}"
    yield from (f"{reason}={_percent(share)}" for reason, share in shares.items())


def _words(sample: Sample) -> Iterator[Iterable[str]]:
    consumed = sum(each.per_second(each.consumed) for each in sample.cpus)
    yield (
        f"tracing={'on' if sample.tracing_on else 'off'}",
        f"enabled={len(sample.enabled)}",
        f"buffer_size_kb={sample.size_kb}",
        f"consumed/s={consumed:.0f}",
    )
    yield from map(_cpu_words, sample.cpus)
    yield from ((f"event={name}", f"events/s={rate:.0f}") for name, rate in sample.rates().items())


def batch_lines(sample: Sample) -> Iterator[str]:
    """The lines of -b."""
    when = f"{sample.now_ns / 1e9:.3f}"
    yield from (f"{when} {' '.join(words)}" for words in _words(sample))


def _batch(sampler: Sampler, times: int | None, delay_s: float) -> None:
    for _ in itertools.count() if times is None else range(times):
        time.sleep(delay_s)
        click.echo("\n".join(batch_lines(sampler.look())))
        sys.stdout.flush()


def _app(sampler: Sampler, times: int | None, delay_s: float) -> TopApp:
    try:
        from hyptrace.top_screen import TopApp  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the screen needs {error.name}: pip install 'hyptracefs[top]'; -b does without"
        ) from None
    return TopApp(sampler, times, delay_s)


def _screen(sampler: Sampler, times: int | None, delay_s: float) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("stdin and stdout are no terminal: say -b for plain lines")
    app = _app(sampler, times, delay_s)
    failed = app.run()
    if failed:
        click.echo(f"hyptrace: {failed}", err=True)
    return _FAILED if failed else 0


@click.command("top", short_help="Live: time in the hypervisor, events, losses.", epilog=_EPILOG)
@click.option("-b", "--batch", is_flag=True, help="Plain lines, for scripts.")
@click.option(
    "-n", "--iterations", "times", metavar="N", type=click.IntRange(min=1),
    help="End after N times.",
)  # fmt: skip
@click.option(
    "-d", "--delay", "delay_s", metavar="SECONDS", default=1.0, show_default=True,
    type=click.FloatRange(min=_LEAST_S, max=3600), help="Between two looks.",
)  # fmt: skip
@mount_option
def command(batch: bool, times: int | None, delay_s: float, mount: str | None) -> int:
    """Show what the hypervisor is doing: time in it by reason, events, losses, buffers.

    It consumes nothing and switches nothing: it looks at `trace` and `stats`, which show what
    is unread. So recordings and pipes of others lose nothing by it; but what they have consumed
    already it cannot see.
    """
    sampler = Sampler(Tracing(find_mount(mount)))
    if batch:
        _batch(sampler, times, delay_s)
        return 0
    return _screen(sampler, times, delay_s)
