"""A remote: an entity outside the host that writes a tracefs-compatible buffer.

Its life cycle (SPEC D.1):

              open trace_pipe, or tracing_on = 1
    unloaded ────────────────────────────────────▶ loaded
        ▲                                             │
        └──── no reader, tracing off, all read ───────┘

What contains no `await` is atomic. What does (allocating, calibrating the clock) is a
transition, one at a time; nothing unloads during one.

A hypervisor can be gone at any time. Tracing is off then; what it has left in its buffer is
read without it, and the next load attaches to the next one, if there is one.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from hyptracefs import clock
from hyptracefs.events import Event
from hyptracefs.filters import ErrorLog, Filters
from hyptracefs.hypercalls import HOST_CPU, Hypercalls
from hyptracefs.hypervisor_statistics import HypervisorStatistics
from hyptracefs.memory import tidy
from hyptracefs.processes import is_ending
from hyptracefs.ring_buffer import (
    ALL_CPUS,
    MAX_SPARES,
    PAGE_SIZE,
    Carry,
    Dump,
    EventSource,
    FilterTable,
    Geometry,
    Memory,
    Pipe,
    RenderTable,
    RingBuffer,
    Slot,
    Stats,
    check_memory,
    clock_snapshot,
    pages_for,
    physical_memory,
)
from hyptracefs.threads import in_thread
from hyptracefs.wakeup import LONGEST_S, Doorbell, Wakeup, interval_s

log = logging.getLogger(__name__)

DEFAULT_SIZE_KB = 7

# How long to wait for a reader that has been killed, and how often to look.
_ENDING_S = 1.0
_LOOK_S = 0.001

# How often to try to calibrate before tracing cannot start.
_CALIBRATIONS = 10

# Bytes, rounded up to pages, must fit 64 bits. (The reference lets its sum wrap.)
MAX_SIZE_KB = (2**64 - PAGE_SIZE) // 1024


@dataclass(frozen=True)
class Settings:
    """What can be chosen for a remote."""

    poll_ms: int | None = None  # how often to look while somebody waits; None: it adapts
    max_bytes: int | None = None  # of all buffers; None: a quarter of the machine's memory
    wakeup: Wakeup | None = None  # None: the doorbell, if there is one and no poll_ms
    sleep: Callable[[float], Awaitable[object]] = trio.sleep  # between two looks

    @property
    def wants_doorbell(self) -> bool:
        """Whether to have the hypervisor ring, if it can."""
        if self.wakeup is None:
            return self.poll_ms is None
        return self.wakeup is Wakeup.DOORBELL


@dataclass(frozen=True)
class RemoteStatistics:
    """What a remote is doing; tests and users wait for it instead of sleeping."""

    loaded: bool
    tracing_on: bool
    readers: int
    waiting: int  # readers that wait for events
    watching: int  # readers that want to be told of events
    looks: int  # for events, while somebody waited
    armed: int  # how often the hypervisor has been asked to ring
    cpus: tuple[Stats, ...]  # none while unloaded


def _boot_ns() -> int:
    """The clock of the events."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _no_other() -> Hypercalls:
    raise OSError(errno.ENODEV, "there is no other hypervisor")


class Remote:
    """One remote named `name` whose hypervisor answers `hypercalls`.

    run() must be running.
    `attach` gives the hypercalls of the next hypervisor when this one is gone; it is called
    in a thread, and raises OSError.
    """

    def __init__(
        self,
        name: str,
        hypercalls: Hypercalls,
        events: Sequence[Event],
        settings: Settings | None = None,
        attach: Callable[[], Hypercalls] = _no_other,
    ) -> None:
        settings = settings or Settings()
        self.name = name
        self.cpus = hypercalls.cpus
        self.events = tuple(events)
        self.size_kb = DEFAULT_SIZE_KB
        self.tracing_on = False
        self._hypercalls = hypercalls
        self._attach = attach
        self._max_bytes = settings.max_bytes or physical_memory() // 4
        self._orphaned = False  # the hypervisor is gone, and we have noticed
        self._settings = settings
        self._doorbell: Doorbell | None = None
        self._doorbell_refused = False
        self._listening = trio.CancelScope()  # to the doorbell
        self._quiet_since = 0.0  # somebody has waited, and nothing came
        self._looks = 0
        self._armed = 0
        self._table = RenderTable(events)
        self._slot = Slot()
        self.source = EventSource(self._slot)
        self._given_back: tuple[Stats, ...] = ()  # by CPU: the end of the buffer before
        self._readers: dict[object, int] = {}  # and the processes that have opened them
        self._generation = 0  # of what can be read: loads, resets, filters
        self._enabled: set[int] = set()
        self.error_log = ErrorLog(_boot_ns)
        self._filters = Filters(self.error_log)
        self._transition_lock = trio.Lock()
        self._waiting = trio.Event()  # set while somebody waits for events
        self._lots: dict[int, trio.lowlevel.ParkingLot] = {}
        self._watchers: dict[Reader, Callable[[], None]] = {}
        self._clock_scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    @property
    def _buffer(self) -> RingBuffer | None:
        return self._slot.buffer

    @_buffer.setter
    def _buffer(self, buffer: RingBuffer | None) -> None:
        self._slot.buffer = buffer

    # --- life -------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll, and keep the clock, until cancelled; then stop and unload."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await (self._be_told() if self.source.attended else self._poll())
        finally:
            self._nursery = None
            self._shut_down()

    def _shut_down(self) -> None:
        self._stop_clock()
        self.source.give_up()
        self.tracing_on = False
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._take_back()
            buffer.close()
        self._take_doorbell_down()

    @property
    def loaded(self) -> bool:
        """Whether the hypervisor has the buffer."""
        return self._buffer is not None

    @property
    def buffer(self) -> RingBuffer:
        """The loaded buffer. Raises OSError ENODEV without one."""
        if self._buffer is None:
            raise OSError(errno.ENODEV, f"{self.name}: the buffer is not loaded")
        return self._buffer

    def statistics(self) -> RemoteStatistics:
        """A snapshot. Polls."""
        buffer = self._buffer
        if buffer is not None:
            buffer.poll()
        return RemoteStatistics(
            loaded=self.loaded,
            tracing_on=self.tracing_on,
            readers=len(self._readers),
            waiting=sum(len(lot) for lot in self._lots.values()) + self.source.parked,
            watching=len(self._watchers),
            looks=self._looks + self.source.looks,
            armed=self._armed + self.source.armed,
            cpus=tuple(buffer.statistics(cpu) for cpu in range(self.cpus)) if buffer else (),
        )

    def final_statistics(self, cpu: int) -> Stats | None:
        """Of the last buffer that had events and was given back, or None if reset since.

        Who has read all asks what was lost.
        """
        return self._given_back[cpu] if self._given_back else None

    def hypervisor_statistics(self) -> HypervisorStatistics:
        """What the hypervisor has counted. Raises OSError: as Hypercalls; ENODEV: it is gone."""
        if self._notice_gone():
            raise OSError(errno.ENODEV, f"{self.name}: {self._hypercalls.gone()}")
        return self._hypercalls.statistics()

    # --- the hypervisor is gone ------------------------------------------------------------

    def _notice_gone(self) -> bool:
        """Whether the hypervisor is gone; at the first time, go on without it."""
        why = self._hypercalls.gone()
        if not why or self._orphaned:
            return bool(why)
        self._orphaned = True
        log.error(
            "%s: the hypervisor is gone: %s; what it has recorded can be read; "
            "echo 1 > tracing_on attaches to the next one",
            self.name,
            why,
        )
        self._stop_clock()
        self.tracing_on = False
        if self._buffer is not None:
            self._buffer.inherit()
            self._wake(self._buffer)
        self.source.give_up()
        self._try_unload()
        return True

    async def _attach_next(self) -> None:
        """Within a transition: another hypervisor, as the one before was told to be."""
        try:
            self._hypercalls = await in_thread(self._attach)
        except OSError as error:
            log.error("%s: %s", self.name, error.strerror)  # noqa: TRY400 (no traceback)
            raise
        self._orphaned = False
        self._take_doorbell_down()
        self._doorbell_refused = False
        if self._buffer is not None:
            if self._buffer.poll():
                log.warning("%s: %d old events are forgotten", self.name, self._buffer.unread())
            self._buffer.close()
            self._buffer = None
            for cpu in range(self.cpus):
                self._forget_owed(cpu)
        for event_id in self._enabled:
            self._hypercalls.enable_event(event_id, on=True)
        log.info("%s: attached to another hypervisor", self.name)

    def _take_back(self) -> None:
        """The buffer, from the hypervisor; one that is gone has let go of it."""
        try:
            self._hypercalls.unload()
        except OSError:
            if not self._hypercalls.gone():
                raise

    # --- load and unload ----------------------------------------------------------------

    @asynccontextmanager
    async def _transition(self) -> AsyncIterator[None]:
        try:
            async with self._transition_lock:
                yield
        finally:
            self._try_unload()

    def _reasons_to_stay(self) -> Iterator[str]:
        if self._transition_lock.locked():
            yield "a transition is under way"
        if self._readers:
            yield f"{len(self._readers)} readers"
        if self.tracing_on:
            yield "tracing is on"
        if self._buffer is not None and self._buffer.poll():
            yield f"{self._buffer.unread()} events are unread"

    def _try_unload(self) -> None:
        buffer = self._buffer
        if buffer is None or next(self._reasons_to_stay(), None) is not None:
            return
        final = tuple(buffer.statistics(cpu) for cpu in range(self.cpus))
        if any(each.entries for each in final):  # one that was only looked into says nothing
            self._given_back = final
        self._take_back()
        self._buffer = None
        if self._nursery is None:
            buffer.close()
        else:
            self._nursery.start_soon(self._give_back, buffer)

    @staticmethod
    async def _give_back(buffer: RingBuffer) -> None:
        """In a thread: for a large buffer it takes long. Also when run() is being cancelled."""
        with trio.CancelScope(shield=True):
            try:
                await in_thread(buffer.close)
            except OSError:  # no thread to be had
                buffer.close()
        tidy()

    async def _load(self) -> None:
        """Within a transition. Raises OSError E2BIG, ENOMEM, or what the hypervisor says."""
        if self.loaded:
            return
        if self._notice_gone():
            await self._attach_next()
        pages = pages_for(self.size_kb)
        # More than the ring has could not be taken.
        spares = min(self._hypercalls.traits.max_spares, MAX_SPARES, pages - 1)
        geometry = Geometry(self.cpus, pages + spares, spares)
        self._check_size(geometry.size)
        # In a thread: to allocate, describe and load a large buffer takes long.
        self._buffer = await in_thread(self._load_buffer, geometry)
        self._generation += 1
        self._apply_filters()
        self._have_it_attended()

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise OSError(
                errno.ENOMEM,
                f"{self.name}: buffers of {size >> 20} MiB wanted; max_buffer_mb allows "
                f"{self._max_bytes >> 20}",
            )

    def _load_buffer(self, geometry: Geometry) -> RingBuffer:
        check_memory(geometry.size)  # before we describe it: that takes memory, too
        descriptor = geometry.descriptor()
        memory = Memory(geometry.size, descriptor)
        calls = self._hypercalls
        try:
            buffer = RingBuffer(memory, geometry, self._table, calls.conduit, HOST_CPU)
            calls.load(geometry.size, len(descriptor), memory.fd, geometry.spares)
        except BaseException:
            memory.close()
            raise
        return buffer

    async def set_size(self, size_kb: int) -> None:
        """KiB per CPU, from the next load on. Raises OSError EINVAL, and EBUSY while loaded."""
        if not 0 < size_kb <= MAX_SIZE_KB:
            raise OSError(errno.EINVAL, f"{self.name}: a buffer of {size_kb} KiB cannot be")
        self._notice_gone()  # a dead one uses it no more
        async with self._transition():
            if self.loaded:
                raise OSError(
                    errno.EBUSY, f"{self.name}: the buffer is in use: stop tracing and readers"
                )
            self.size_kb = size_kb

    # --- tracing and its clock ------------------------------------------------------------

    async def start_tracing(self) -> None:
        """Load, calibrate the clock (0.1 s), let the writers write. Fine when already on."""
        async with self._transition():
            if self.tracing_on and not self._notice_gone():
                return
            if self._notice_gone():
                await self._attach_next()
            await self._load()
            await self._start_clock()
            try:
                self._hypercalls.enable(on=True)
            except OSError:
                self._stop_clock()
                raise
            self.tracing_on = True

    async def stop_tracing(self) -> None:
        """Stop the writers; unloads if all is read. Fine when already off."""
        async with self._transition():
            if not self.tracing_on or self._notice_gone():
                return
            try:
                self._hypercalls.enable(on=False)
            except OSError:
                if self._notice_gone():
                    return  # tracing is off then, too
                raise
            self._stop_clock()
            self.tracing_on = False
            self._poll_once()
            self.source.look()

    async def _start_clock(self) -> None:
        calls = self._hypercalls
        estimator = clock.ClockEstimator(
            clock_snapshot(calls.traits.counter), calls.traits.counter_hz
        )
        for _ in range(_CALIBRATIONS):
            await trio.sleep(clock.INIT_S)
            if self._update_clock(estimator):
                break
        else:
            raise OSError(errno.EIO, f"{self.name}: the counter of its clock stands still")
        self._clock_scope = trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._keep_clock, estimator, self._clock_scope)

    def _stop_clock(self) -> None:
        self._clock_scope.cancel()

    def _update_clock(self, estimator: clock.ClockEstimator) -> bool:
        conversion = estimator.tick(clock_snapshot(self._hypercalls.traits.counter))
        if conversion is not None:
            self._hypercalls.update_clock(conversion)
        return conversion is not None

    async def _keep_clock(self, estimator: clock.ClockEstimator, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep(clock.UPDATE_S)
                try:
                    self._update_clock(estimator)
                except OSError as error:
                    if self._notice_gone():
                        return
                    # The old conversion goes on; the next tick tries again.
                    log.warning("%s: clock: %s", self.name, error)
                except MemoryError:
                    log.warning("%s: clock: out of memory", self.name)

    # --- events -------------------------------------------------------------------------------

    def event_enabled(self, event: Event) -> bool:
        """Whether the hypervisor writes this event."""
        return event.id in self._enabled

    def enable_event(self, event: Event, on: bool) -> None:
        """Switch an event; the hypervisor is asked only about a change."""
        if self.event_enabled(event) == on:
            return
        self._hypercalls.enable_event(event.id, on)
        (self._enabled.add if on else self._enabled.discard)(event.id)

    def enable_events(self, events: Iterable[Event], on: bool) -> None:
        """Switch each of them; then raise the first error, if there was one."""
        errors: list[OSError] = []
        for event in events:
            try:
                self.enable_event(event, on)
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def write_event(self, cpu: int, value: int) -> None:
        """Emit a `selftest` event on `cpu`."""
        self._hypercalls.write_event(cpu, value)

    # --- filters: what readers are shown of what is written -----------------------------------

    def filter_text(self, event: Event) -> str:
        """What the `filter` file of an event shows."""
        return self._filters.text(event)

    def set_filter(self, event: Event, expression: str) -> None:
        """Show an event only if it matches, from what is unread on; "0": always.

        Raises FilterError (EINVAL): then it is always shown, and the error log says why.
        """
        with self._applied_filters():
            self._filters.set(event, expression)

    def set_filters(self, expression: str) -> None:
        """Likewise, each event that has the fields; others are shown. FilterError: none has."""
        with self._applied_filters():
            self._filters.set_all(self.events, expression)

    @contextmanager
    def _applied_filters(self) -> Iterator[None]:
        """What is set inside is what readers are shown; with no memory for it, nothing is."""
        restore = self._filters.saved()
        try:
            yield
        finally:
            try:
                self._apply_filters()
            except MemoryError:
                restore()
                raise

    def _apply_filters(self) -> None:
        if self._buffer is not None:
            self._buffer.set_filters(FilterTable(self._filters.predicates()))
            self._generation += 1
            self.source.look()

    # --- readers --------------------------------------------------------------------------------

    def _cpus(self, cpu: int) -> Sequence[int]:
        return range(self.cpus) if cpu == ALL_CPUS else [cpu]

    def reset(self, cpu: int = ALL_CPUS) -> None:
        """Forget events; tracing goes on. Unloads if nothing else is in the way."""
        self._given_back = ()
        if self._buffer is None:
            return
        self._generation += 1
        for each in self._cpus(cpu):
            self._hypercalls.reset(each)
            self._buffer.reset(each)
            self._forget_owed(each)
        self._try_unload()

    def _forget_owed(self, cpu: int) -> None:
        """What readers are owed of `cpu` is of before: those who never get it have lost nothing."""
        for reader in self._readers:
            if isinstance(reader, Reader):
                reader.forget_owed(cpu)

    async def open_reader(self, cpu: int = ALL_CPUS, caller: int = 0) -> Reader:
        """A consuming reader for process `caller`; loads the buffer if needed.

        Close it with close().
        """
        async with self._transition():
            await self._load()
            reader = Reader(self, cpu)
            self._readers[reader] = caller
        return reader

    def open_dump(self, cpu: int = ALL_CPUS, caller: int = 0) -> DumpReader | None:
        """What is unread now, for process `caller`; None when nothing is loaded."""
        if self._buffer is None:
            return None
        reader = DumpReader(self, self._buffer.dump(cpu))
        self._readers[reader] = caller
        return reader

    def content(self, cpu: int = ALL_CPUS) -> object:
        """Something that is not equal once there are other events to show; None: no buffer."""
        if self._buffer is None:
            return None
        self._buffer.poll()
        stats = tuple(self._buffer.statistics(each) for each in self._cpus(cpu))
        return self._generation, stats

    async def ending_readers_close(self) -> None:
        """Wait for the readers that a signal has ended, but that have not got round to closing.

        In a kernel that takes microseconds, so scripts rely on it: `kill $cat; cat
        buffer_size_kb`. Here they need answers from us first.
        """
        with trio.move_on_after(_ENDING_S):
            for reader, caller in list(self._readers.items()):
                while reader in self._readers and is_ending(caller):  # noqa: ASYNC110
                    await trio.sleep(_LOOK_S)  # /proc tells nobody
                await trio.lowlevel.checkpoint()  # there may be many

    def reader_closed(self, reader: Reader | DumpReader) -> None:
        """For the close() of a reader."""
        if isinstance(reader, Reader):
            self._watchers.pop(reader, None)
        del self._readers[reader]
        self._try_unload()

    def read(self, read: Callable[[RingBuffer], memoryview]) -> memoryview:
        """For a Reader: from the buffer that there is; nothing between two hypervisors."""
        if self._buffer is None:
            return memoryview(b"")
        done = read(self._buffer)
        if not done and self._notice_gone():
            # It was asked for a page while it died: now we know where the rest is.
            done = read(self._buffer)
        return done

    def read_cached(self, pipe: Pipe, size: int, offset: int) -> bytes:
        """For a Reader: likewise."""
        try:
            return pipe.read_cached(size, offset)
        except BlockingIOError:
            if not self._notice_gone():
                raise
        return pipe.read_cached(size, offset)

    def pipe(self, cpu: int, carry: Carry, raw: bool) -> Pipe:
        """For a Reader: what reads from the buffer that there is, without Python."""
        return Pipe(self._slot, self.source, cpu, carry, raw)

    async def wait_for_events(self, cpu: int) -> None:
        """Wait until a poll has seen unread events of `cpu`."""
        self._begin_to_wait(cpu)
        await self._lots.setdefault(cpu, trio.lowlevel.ParkingLot()).park()

    def watch(self, reader: Reader, tell: Callable[[], None]) -> None:
        """Call `tell`, once, when a poll has seen unread events for `reader`.

        Replaces what `reader` had asked to be called before.
        """
        self._watchers[reader] = tell
        self._begin_to_wait(reader.cpu)

    def _begin_to_wait(self, cpu: int) -> None:
        """For who is about to wait for events of `cpu`."""
        self._quiet_since = trio.current_time()
        self._waiting.set()
        self._listening.cancel()  # perhaps for another CPU
        self._want(cpu)

    def _waited_for(self) -> set[int]:
        """CPUs, and ALL_CPUS."""
        waiting = {cpu for cpu, lot in self._lots.items() if lot}
        return waiting | {reader.cpu for reader in self._watchers}

    def _wanted(self, *others: int) -> int | None:
        """The one CPU that is waited for, with these `others`, or ALL_CPUS; None: nobody waits."""
        waited_for = self._waited_for().union(others)
        return ALL_CPUS if len(waited_for) > 1 else min(waited_for, default=None)

    def _wake(self, buffer: RingBuffer) -> bool:
        """Wake those for whom there is something; whether there was somebody."""
        lots = [lot for cpu, lot in self._lots.items() if lot and buffer.unread(cpu)]
        for lot in lots:
            lot.unpark_all()
        readers = [reader for reader in self._watchers if buffer.unread(reader.cpu)]
        for reader in readers:
            self._watchers.pop(reader)()
        return bool(lots or readers)

    def _poll_once(self) -> bool:
        """Look for events; whether somebody has been waiting for them."""
        self._looks += 1
        if self._buffer is None or not self._buffer.poll() or not self._wake(self._buffer):
            self._notice_gone()  # it is not, as long as events come
            return False
        self._quiet_since = trio.current_time()
        return True

    async def _poll(self) -> None:
        while True:
            await self._waiting.wait()
            while self._waited_for():
                waited_s = trio.current_time() - self._quiet_since
                await self._settings.sleep(interval_s(waited_s, self._settings.poll_ms))
                if not self._poll_once() and (doorbell := self._arm()):
                    await self._listen(doorbell)
            self._waiting = trio.Event()

    # --- with a pump ------------------------------------------------------------------------

    def _have_it_attended(self) -> None:
        """The buffer, and the hypervisor that there is now."""
        if not self.source.attended:
            return
        try:
            doorbell = self._hang_doorbell()
        except OSError as error:
            self._do_without_doorbell(str(error.strerror))
            doorbell = None
        poll_ms = self._settings.poll_ms or 0
        self.source.listen(
            self._hypercalls.lifeline, -1 if doorbell is None else doorbell.fd, poll_ms * 1_000_000
        )
        self._want()

    def _want(self, *others: int) -> None:
        """Be told, if somebody waits whom the pump does not know; also for these `others`."""
        wanted = self._wanted(*others)
        if wanted is not None and not self.source.gone:
            self.source.want(wanted)

    async def _be_told(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.source.told_fd)
            os.eventfd_read(self.source.told_fd)
            self._poll_once()
            if self._doorbell is not None and not self.source.has_bell and not self.source.gone:
                self._do_without_doorbell("it has been let go of")
            self._want()

    # --- the doorbell -----------------------------------------------------------------------

    def _take_doorbell_down(self) -> None:
        doorbell, self._doorbell = self._doorbell, None
        if doorbell is not None:
            self._listening.cancel()
            doorbell.close()

    def _hang_doorbell(self) -> Doorbell | None:
        """The doorbell; None if there is none, or it is not wanted."""
        wanted = self._hypercalls.traits.doorbell and self._settings.wants_doorbell
        if self._doorbell is None and wanted and not self._doorbell_refused:
            self._doorbell = Doorbell(self._hypercalls)
        return self._doorbell

    def _do_without_doorbell(self, why: str) -> None:
        self._doorbell_refused = True
        self._take_doorbell_down()
        if not self._notice_gone():
            log.warning("%s: no doorbell, polling instead: %s", self.name, why)

    def _arm(self) -> Doorbell | None:
        """Ask the hypervisor to ring for those who wait. None: it does not; look again."""
        try:
            doorbell, wanted = self._hang_doorbell(), self._wanted()
            if doorbell is None or wanted is None:
                return None
            doorbell.arm(wanted)
        except OSError as error:
            self._do_without_doorbell(str(error.strerror))
            return None
        self._armed += 1
        return doorbell

    async def _listen(self, doorbell: Doorbell) -> None:
        """Armed: look once more, then wait until it rings, or somebody else begins to wait.

        One that rings with nothing to see is not armed again at once: the time without
        events goes on, and _poll() sleeps its part of it. Now and then, look all the same.
        """
        with trio.CancelScope() as self._listening:
            while self._waited_for() and not self._poll_once():
                with trio.move_on_after(LONGEST_S):
                    await doorbell.wait()
                    self._poll_once()
                    break


class Reader:
    """An open file that consumes events. Holds the buffer loaded until close()."""

    def __init__(self, remote: Remote, cpu: int) -> None:
        self.cpu = cpu
        self._remote = remote
        self._carry = Carry()

    def try_read_text(self, size: int) -> memoryview:
        """Lines, up to `size` bytes; empty when there are none. Valid until the next read."""
        return self._remote.read(lambda buffer: buffer.read_text(self.cpu, self._carry, size))

    def try_read_raw(self, size: int) -> memoryview:
        """Page images, up to `size` bytes; otherwise like try_read_text()."""
        return self._remote.read(lambda buffer: buffer.read_raw(self.cpu, self._carry, size))

    def try_read_cached(self, pipe: Pipe, size: int, offset: int) -> bytes:
        """As Pipe.read_cached(), of one that pipe() has given."""
        return self._remote.read_cached(pipe, size, offset)

    def pipe(self, raw: bool) -> Pipe:
        """What C reads from, without Python: as try_read_text() or try_read_raw()."""
        return self._remote.pipe(self.cpu, self._carry, raw)

    @property
    def owes(self) -> bool:
        """Whether part of a line, or of a page, has been read, and not the rest."""
        return bool(self._carry)

    @property
    def unfinished(self) -> bool:
        """Whether an empty read, just made, is not the end: it passed over filtered events."""
        return self._remote.loaded and self._remote.buffer.unfinished

    async def wait(self) -> None:
        """Wait until there may be something to read; after an unfinished read, let others run."""
        if self.unfinished:
            await trio.lowlevel.checkpoint()
        else:
            await self._remote.wait_for_events(self.cpu)

    def readable(self) -> bool:
        """Whether a read would give something now."""
        return self.owes or (self._remote.loaded and self._remote.buffer.ready(self.cpu))

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell`, once, when there may be something to read."""
        self._remote.watch(self, tell)

    def forget_owed(self, cpu: int) -> None:
        """The rest of a line or of a page of `cpu` can be read, but is no loss any more."""
        self._carry.forget(cpu)

    def close(self) -> None:
        """Let go; unloads if this was the last reason to stay. Once only.

        Who comes next is told of what was consumed for us and not read.
        """
        if self._remote.loaded:
            self._remote.buffer.abandon(self._carry)
        self._remote.reader_closed(self)


class DumpReader:
    """An open file that shows what was unread. Holds the buffer loaded until close()."""

    def __init__(self, remote: Remote, dump: Dump) -> None:
        self.dump = dump
        self._remote = remote

    def close(self) -> None:
        """Let go; unloads if this was the last reason to stay. Once only."""
        self.dump.close()
        self._remote.reader_closed(self)
