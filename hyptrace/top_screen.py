"""The screen of `hyptrace top`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from hyptrace.sampling import CpuSample, Sample, Sampler

_T = TypeVar("_T")

_BAR = 20  # cells
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_CPU_COLUMNS = ("CPU", "in hypervisor", "%", "events/s", "lost/s", "fill", "seen", "by reason")
_EVENT_COLUMNS = ("on", "event", "events/s")


def bar(share: float, cells: int = _BAR) -> str:
    """A bar of `share`, 0 to 1, of so many cells."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(cells)


def cpu_cells(each: CpuSample) -> tuple[str, ...]:
    """The row of a CPU."""
    shares = each.shares
    total = sum(shares.values())
    reasons = "  ".join(f"{reason} {100 * share:.1f}" for reason, share in shares.items())
    return (
        str(each.cpu), bar(total), f"{100 * total:5.1f}", f"{each.per_second(each.recorded):9.0f}",
        f"{each.per_second(each.lost):8.0f}", f"{100 * each.fill:4.0f}%",
        f"{100 * each.coverage:4.0f}%", reasons,
    )  # fmt: skip


def event_cells(name: str, sample: Sample, rates: dict[str, float]) -> tuple[str, ...]:
    """The row of an event (system:name)."""
    rate = rates.get(name.partition(":")[2], 0.0)
    return ("●" if name in sample.enabled else "○", name, f"{rate:9.0f}")


def headline(sample: Sample, path: str, *, paused: bool) -> str:
    """What is true of the whole mount."""
    consumed = sum(each.per_second(each.consumed) for each in sample.cpus)
    parts = [
        path,
        "tracing" if sample.tracing_on else "not tracing: t switches it on",
        f"{len(sample.enabled)} events on",
        f"{sample.size_kb} KiB per CPU",
        f"others consume {consumed:.0f}/s: not seen here" if consumed else "consumes nothing",
        *(["paused"] if paused else []),
    ]
    return "   ".join(parts)


def _fill(table: DataTable[str], rows: list[tuple[str, ...]]) -> None:
    """Set all cells; cursor and scroll stay where they are."""
    for number, cells in enumerate(rows):
        if number >= table.row_count:
            table.add_row(*cells)
            continue
        for column, cell in enumerate(cells):
            table.update_cell_at((number, column), cell, update_width=True)  # type: ignore[arg-type]


class TopApp(App[str]):
    """Looks each `delay_s`, `times` or until q. Gives what went wrong, or None."""

    TITLE = "hyptrace top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { background: $primary; color: $text; padding: 0 1; }
    #cpus { height: auto; max-height: 50%; }
    #events { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "tracing", "Tracing"),
        Binding("space", "event", "Event on/off", priority=True),
        Binding("a", "all_events", "All events"),
        Binding("p", "pause", "Pause"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, sampler: Sampler, times: int | None, delay_s: float) -> None:
        super().__init__()
        self._sampler = sampler
        self._left = times
        self._delay_s = delay_s
        self._paused = False
        self._busy = asyncio.Lock()  # one look or switch at a time
        self._events: list[str] = []
        self.sample: Sample | None = None

    def compose(self) -> ComposeResult:
        """Headline, CPUs, events, keys."""
        yield Static(id="head", markup=False)
        cpus: DataTable[str] = DataTable(id="cpus", cursor_type="none")
        events: DataTable[str] = DataTable(id="events", cursor_type="row")
        yield cpus
        yield events
        yield Footer()

    @property
    def _cpu_table(self) -> DataTable[str]:
        return self.query_one("#cpus", DataTable)

    @property
    def _event_table(self) -> DataTable[str]:
        return self.query_one("#events", DataTable)

    async def on_mount(self) -> None:
        """The first look, and from now on one each `delay_s`."""
        self._cpu_table.add_columns(*_CPU_COLUMNS)
        self._event_table.add_columns(*_EVENT_COLUMNS)
        self._event_table.focus()
        self._events = await self._ask(self._sampler.tracing.events) or []
        await self._look()
        self.set_interval(self._delay_s, self._tick)

    async def _ask(self, what: Callable[[], _T]) -> _T | None:
        """What the mount says, in a thread: it may take its time. Ends all if it is dead."""
        async with self._busy:
            try:
                return await asyncio.to_thread(what)
            except OSError as error:
                self.exit(f"{self._sampler.tracing.path}: {error.strerror}")
                return None

    async def _tick(self) -> None:
        if self._paused or self._busy.locked():
            return
        await self._look()
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.exit()

    async def _look(self) -> None:
        sample = await self._ask(self._sampler.look)
        if sample is not None:
            self._show(sample)

    def _show(self, sample: Sample) -> None:
        self.sample = sample
        rates = sample.rates()
        path = str(self._sampler.tracing.path)
        self.query_one("#head", Static).update(headline(sample, path, paused=self._paused))
        _fill(self._cpu_table, [cpu_cells(each) for each in sample.cpus])
        _fill(self._event_table, [event_cells(name, sample, rates) for name in self._events])

    # --- keys ----------------------------------------------------------------------------------

    async def _switch(self, what: Callable[[], None]) -> None:
        await self._ask(what)
        await self._look()

    async def action_tracing(self) -> None:
        """Switch tracing."""
        tracing = self._sampler.tracing
        await self._switch(lambda: tracing.trace(on=not tracing.on))

    async def action_event(self) -> None:
        """Switch the event under the cursor."""
        row = self._event_table.cursor_row
        if self.sample is None or not 0 <= row < len(self._events):
            return
        name = self._events[row]
        on = name not in self.sample.enabled
        await self._switch(lambda: self._sampler.tracing.switch(name, on=on))

    async def action_all_events(self) -> None:
        """Switch all events on; or off, if all are on."""
        if self.sample is None:
            return
        wanted = [] if set(self.sample.enabled) >= set(self._events) else self._events
        await self._switch(lambda: self._sampler.tracing.enable(wanted))

    def action_pause(self) -> None:
        """Look no more, for a while."""
        self._paused = not self._paused
        if self.sample is not None:
            self._show(self.sample)
