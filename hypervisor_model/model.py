"""The hypervisor as an object of Python. The one module here that touches ffi."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from hypervisor_model._hyp import ffi, lib
from hypervisor_model.script import Program, Step, Workload


class FieldInfo(NamedTuple):
    """A field of an event's payload: C type text, name, bytes from its start, bytes, sign."""

    type: str
    name: str
    offset: int
    size: int
    signed: bool


class EventInfo(NamedTuple):
    """An event as its hypervisor describes it; `print_fmt` as in the `format` file."""

    id: int
    name: str
    fields: tuple[FieldInfo, ...]
    print_fmt: str


class SymbolTable(NamedTuple):
    """What calling `function` on a value in a print format gives.

    `symbols` are values, unsigned of 64 bits, with their texts; `fallback` is for all other
    values, None: the value itself, as 0x%lx.
    """

    function: str
    symbols: tuple[tuple[int, str], ...]
    fallback: str | None


class Format(NamedTuple):
    """A format of printk-like events, and how many u64s it prints."""

    text: str
    nr_args: int


@dataclass(frozen=True)
class FormatTable:
    """What the records of `event` print.

    The format that their field `index` counts, from 0, with the u64s that begin at their
    field `args`.
    """

    event: str
    index: str
    args: str
    formats: tuple[Format, ...]


_U64_MAX = 2**64 - 1
_PROGRAMS = {"guest": lib.HYP_PROGRAM_GUEST, "chaos": lib.HYP_PROGRAM_CHAOS}


def _text(pointer: Any) -> str:
    text: bytes = ffi.string(pointer)
    return text.decode("ascii")


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(-result, f"hypervisor model: {what}: {os.strerror(-result)}")


def _until_null(at: Callable[[int], Any]) -> Iterator[Any]:
    index = 0
    while at(index) != ffi.NULL:
        yield at(index)
        index += 1


def _fields(table: Any) -> Iterator[FieldInfo]:
    index = 0
    while table[index].name != ffi.NULL:
        field = table[index]
        yield FieldInfo(
            _text(field.type), _text(field.name), field.offset, field.size, bool(field.is_signed)
        )
        index += 1


def describe_events(describe: Callable[[int], Any] = lib.hyp_event_desc) -> tuple[EventInfo, ...]:
    """All events, in the order of their indices."""
    return tuple(
        EventInfo(desc.id, _text(desc.name), tuple(_fields(desc.fields)), _text(desc.print_fmt))
        for desc in _until_null(describe)
    )


def describe_symbols() -> tuple[SymbolTable, ...]:
    """The tables of all functions that print formats call."""
    return tuple(
        SymbolTable(
            _text(table.function),
            tuple((i, _text(table.symbols[i])) for i in range(table.nr_symbols)),
            _text(table.fallback),
        )
        for table in _until_null(lib.hyp_symbol_table)
    )


def describe_formats() -> tuple[FormatTable, ...]:
    """The tables of all events that print by formats."""
    return tuple(
        FormatTable(
            _text(table.event),
            _text(table.index),
            _text(table.args),
            tuple(
                Format(_text(table.formats[i].text), table.formats[i].nr_args)
                for i in range(table.nr_formats)
            ),
        )
        for table in _until_null(lib.hyp_format_table)
    )


def _reason_numbers(tables: tuple[SymbolTable, ...]) -> dict[str, int]:
    [reasons] = (table for table in tables if table.function == "__hyp_enter_exit_reason_str")
    return {name: number for number, name in reasons.symbols}


def _format_numbers(tables: tuple[FormatTable, ...]) -> dict[str, int]:
    [printk] = tables
    return {form.text: number for number, form in enumerate(printk.formats)}


class _Remote:
    """What answers hypercalls in this process. Ends with close(), or as a context manager."""

    def __init__(self, cpus: int, create: Callable[[int, Any], int]) -> None:
        self.cpus = cpus
        created = ffi.new("struct hyp **")
        _check(create(cpus, created), f"create {cpus} CPUs")
        self._hyp: Any = ffi.gc(created[0], lib.hyp_destroy)

    @property
    def conduit(self) -> int:
        """Address of the hvc_conduit through which the host calls. Valid until close()."""
        if self._hyp is None:
            raise ValueError("hypervisor model: closed")
        address: int = lib.hyp_conduit_address(self._hyp)
        return address

    @property
    def has_doorbell(self) -> bool:
        """Whether the host can have it ring when there are events."""
        return bool(lib.hyp_has_doorbell(self._hyp))

    def close(self) -> None:
        """Stop the CPUs and free everything. A second call does nothing."""
        hyp, self._hyp = self._hyp, None
        if hyp is not None:
            ffi.release(hyp)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class RemoteTest(_Remote):
    """The remote `test`: buffers of `cpus` CPUs that nobody but the host writes to."""

    def __init__(self, cpus: int) -> None:
        super().__init__(cpus, lib.remote_test_create)
        self.events = describe_events(lib.remote_test_event_desc)


class Hypervisor(_Remote):
    """A running hypervisor with `cpus` pCPUs that play `workload`.

    Raises OSError where the machine cannot give what it needs.
    """

    def __init__(self, cpus: int, workload: Workload) -> None:
        super().__init__(cpus, lib.hyp_create)
        self.events = describe_events()
        self.symbol_tables = describe_symbols()
        self.format_tables = describe_formats()
        arrays: dict[int, Any] = {}
        for cpu, steps in workload.scripts.items():
            # CPUs may share a script.
            if id(steps) not in arrays:
                arrays[id(steps)] = self._steps(steps)
            result = lib.hyp_set_script(
                self._hyp, cpu, arrays[id(steps)], len(steps), workload.period
            )
            _check(result, f"script of CPU {cpu}")
        for cpu, program in workload.programs.items():
            self._run_program(cpu, program)
        _check(lib.hyp_start(self._hyp), "start the CPU threads")

    def _steps(self, steps: list[Step]) -> Any:
        names = _reason_numbers(self.symbol_tables) | _format_numbers(self.format_tables)
        indices = {event.name: index for index, event in enumerate(self.events)}

        def number(arg: int | str) -> int:
            return names[arg] if isinstance(arg, str) else arg & _U64_MAX

        return ffi.new(
            "struct pcpu_step[]",
            [(step.at, indices[step.event], [number(arg) for arg in step.args]) for step in steps],
        )

    def _run_program(self, cpu: int, program: Program) -> None:
        result = lib.hyp_run_program(
            self._hyp, cpu, _PROGRAMS[program.name], program.vcpus, program.seed
        )
        _check(result, f"program {program.name} of CPU {cpu}")

    @property
    def writer_ordering(self) -> str:
        """What keeps writers in order with disable and reset: "membarrier" or "cmpxchg"."""
        return _text(lib.hyp_writer_ordering(self._hyp))

    def serve_host(self, host_fd: int, stop_fd: int) -> None:
        """Answer the host at `host_fd` until it is gone, or until `stop_fd` is readable."""
        lib.hyp_serve_host(self._hyp, host_fd, -1, stop_fd)

    def allow(self, uid: int) -> None:
        """Hosts of user `uid` may attach, too; else it is root, and who we run as."""
        lib.hyp_allow(self._hyp, uid)

    def serve(self, listen_fd: int, stop_fd: int) -> None:
        """Answer one host after the other, until `stop_fd` is readable."""
        lib.hyp_serve(self._hyp, listen_fd, stop_fd)
