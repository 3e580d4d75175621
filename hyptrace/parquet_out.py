"""Parquet: a directory of tables, for engines that query.

    all-events/     time_ns, cpu, event, id, lost: one row for each event
    EVENT/          time_ns, cpu, and its fields; for a field that prints as a text, FIELD_name
    hyp-stays/      start_ns, duration_ns, cpu, place, reason, reason_name, exit_reason,
                    exit_reason_name, vcpu: one row for each stay in the hypervisor or a guest

Numbers are signed and wider than in the record, save u64, as engines without unsigned ones want
it. Files of one capture have its name; partitioned, they are in host=NAME/day=DATE below each
table, so that those of a fleet make one table.

A file is reserved on the disk before it grows: when there is no room for more, what has been
written before is closed as it should be.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor_model import FieldInfo
from hyptrace.capture import Capture
from hyptrace.decoder import GUEST, HYP, REASONS, Batch, CpuCount, Rows, Stays, is_number
from hyptrace.formats import Described, is_tail, item_size
from hyptrace.lines import NO_EVENT, symbol_of, value_texts
from hyptrace.output import refuse_existing
from hyptrace.perfetto_out import missing_extra
from hyptrace.reasons import reason_names, stays_of

ALL_EVENTS = "all-events"
STAYS = "hyp-stays"

_GROUP_ROWS = 1 << 20  # of a row group
MAX_PENDING = 64 << 20  # bytes of all tables that are not written yet
FOOTER = 1 << 20  # bytes that are enough for the end of a file
_LOST_UNKNOWN = 2**64 - 1
_PLACES = {HYP: "hypervisor", GUEST: "guest"}


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise missing_extra("pyarrow") from None


class ReservedFile:
    """A file that pyarrow writes, with room for its end set aside."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o666)
        self._at = 0
        self.closed = False
        try:
            self.reserve(0)
        except OSError:
            self.close()
            path.unlink()
            raise

    def reserve(self, size: int) -> None:
        """Make sure that `size` bytes more fit, and the end. Raises OSError ENOSPC."""
        try:
            os.posix_fallocate(self._file, self._at, size + FOOTER)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise

    def write(self, data: Any) -> int:
        """Write all of it. Raises OSError."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self._file, view[done:], self._at + done)
        self._at += done
        return done

    def tell(self) -> int:
        """Bytes written."""
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""

    def writable(self) -> bool:
        """As of any file."""
        return True

    def readable(self) -> bool:
        """As of any file."""
        return False

    def seekable(self) -> bool:
        """As of any file."""
        return False

    def close(self) -> None:
        """End it where it has been written to."""
        if not self.closed:
            self.closed = True
            os.ftruncate(self._file, self._at)
            os.close(self._file)


class _Table:
    """One table of the capture; its file begins with its first rows."""

    def __init__(self, arrow: Any, path: Path, schema: Any, plain: Sequence[str]) -> None:
        self._arrow, self._path, self._schema, self._plain = arrow, path, schema, plain
        self._batches: list[Any] = []
        self._file: ReservedFile | None = None
        self._writer: Any = None
        self.pending = 0  # bytes

    def add(self, columns: Sequence[Any]) -> None:
        batch = self._arrow.RecordBatch.from_arrays(columns, schema=self._schema)
        self._batches.append(batch)
        self.pending += batch.nbytes

    def _open(self) -> ReservedFile:
        if self._file is None:
            self._file = ReservedFile(self._path)
            self._writer = self._arrow.parquet.ParquetWriter(
                self._arrow.PythonFile(self._file, mode="w"),
                self._schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=[name for name in self._schema.names if name not in self._plain],
                column_encoding=dict.fromkeys(self._plain, "DELTA_BINARY_PACKED"),
                store_schema=False,
                write_statistics=[
                    name for name in self._schema.names if name in {*self._plain, "cpu"}
                ],
            )
        return self._file

    def take(self) -> Any:
        """What has been added since the last time; None: nothing."""
        batches, self._batches = self._batches, []
        self.pending = 0
        return self._arrow.Table.from_batches(batches, self._schema) if batches else None

    def write(self, table: Any) -> None:
        """Write it, as a row group. Raises OSError ENOSPC; then nothing of it is written."""
        # What is encoded may be larger than it was, but not by more than this.
        self._open().reserve(table.nbytes + table.nbytes // 8 + (64 << 10))
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)

    def close(self) -> None:
        """End the file, without what has not been written."""
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
            self._writer = None


@dataclass(frozen=True)
class _Column:
    """A column of an event: its name, its type, and how to make it of some rows."""

    name: str
    type: Any
    make: Callable[[Rows], Any]
    plain: bool = False  # of values that do not repeat


class _Columns:
    """Makes columns of events."""

    def __init__(self, arrow: Any) -> None:
        self._arrow = arrow
        self._wide = {
            (1, False): arrow.int16(), (2, False): arrow.int32(), (4, False): arrow.int64(),
            (8, False): arrow.uint64(), (1, True): arrow.int16(), (2, True): arrow.int32(),
            (4, True): arrow.int32(), (8, True): arrow.int64(),
        }  # fmt: skip

    def array(self, kind: Any, nr: int, data: bytes | bytearray, valid: Any = None) -> Any:
        return self._arrow.Array.from_buffers(kind, nr, [valid, self._arrow.py_buffer(data)])

    def names(self, nr: int, indices: bytes | bytearray, texts: Any) -> Any:
        """Texts by index, of u8 or u16."""
        kind = self._arrow.uint8() if len(indices) == nr else self._arrow.uint16()
        return self._arrow.DictionaryArray.from_arrays(
            self.array(kind, nr, indices), texts, safe=False
        )

    def texts(self, texts: Sequence[str]) -> Any:
        return self._arrow.array(texts, self._arrow.string())

    def name_type(self, size: int) -> Any:
        """Of names() with indices of `size` bytes."""
        kind = self._arrow.uint8() if size == 1 else self._arrow.uint16()
        return self._arrow.dictionary(kind, self._arrow.string())

    def of_event(self, each: Described) -> list[_Column]:
        columns = [
            _Column("time_ns", self._arrow.int64(), self.time, plain=True),
            _Column("cpu", self._arrow.int32(), self.cpu),
        ]
        for field in each.fields:
            columns += self._of_field(each, field)
        taken: dict[str, _Column] = {}
        for column in columns:
            # A field may have the name of a column that all have.
            name = column.name if column.name not in taken else f"{column.name}_"
            taken[name] = _Column(name, column.type, column.make, column.plain)
        return list(taken.values())

    def time(self, rows: Rows) -> Any:
        return self.array(self._arrow.int64(), rows.nr, rows.times())

    def cpu(self, rows: Rows) -> Any:
        return self.array(self._arrow.int32(), rows.nr, rows.cpus())

    def _of_field(self, each: Described, field: FieldInfo) -> list[_Column]:
        if is_number(field):
            return self._of_number(each, field)
        if is_tail(field):
            return [self._of_tail(field)]
        kind = self._arrow.binary(field.size)
        make = lambda rows: self.array(kind, rows.nr, rows.bytes(field))  # noqa: E731
        return [_Column(field.name, kind, make)]

    def _of_number(self, each: Described, field: FieldInfo) -> list[_Column]:
        kind = self._wide[field.size, bool(field.signed)]
        width = kind.bit_width // 8
        number = _Column(
            field.name, kind, lambda rows: self.array(kind, rows.nr, rows.numbers(field, width))
        )
        table = symbol_of(each.event, field)
        if table is None or field.size != 1:
            return [number]
        all_texts = self.texts(value_texts(table, field, 256))

        def make(rows: Rows) -> Any:
            return self.names(rows.nr, rows.bytes(field), all_texts)

        return [number, _Column(f"{field.name}_name", self.name_type(1), make)]

    def _of_tail(self, field: FieldInfo) -> _Column:
        size = item_size(field)
        item = self._wide[size, field.signed]
        exact = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}[size]
        narrow = getattr(self._arrow, exact if field.signed else f"u{exact}")()
        kind = self._arrow.list_(item)

        def make(rows: Rows) -> Any:
            ends, items = rows.tails(field, size)
            values = self.array(narrow, len(items) // size, items).cast(item)
            offsets = self.array(self._arrow.int32(), rows.nr + 1, ends)
            return self._arrow.ListArray.from_arrays(offsets, values)

        return _Column(field.name, kind, make)


def _remove_tables(out: Path) -> None:
    """Those of another capture would make one table with ours."""
    for file in out.glob("*/*.parquet"):
        file.unlink()


@dataclass(frozen=True)
class Partition:
    """Where below each table the file goes."""

    host: str
    day: str  # ISO 8601

    @property
    def path(self) -> str:
        """As Hive names directories."""
        return f"host={self.host}/day={self.day}"


class ParquetSink:
    """Writes the tables below `out`."""

    def __init__(
        self, capture: Capture, out: Path, partition: Partition | None, *, force: bool
    ) -> None:
        self._arrow = arrow = _pyarrow()
        self._capture = capture
        self._columns = _Columns(arrow)
        self._out = out
        self._below = partition.path if partition else ""
        if partition is None and out.exists() and any(out.iterdir()):
            refuse_existing(out, force=force)
            _remove_tables(out)
        self._name = f"{capture.path.resolve().stem}.parquet"
        self._force = force
        self._all = self._table(ALL_EVENTS, self._all_schema(), ["time_ns"])
        self._stays_table = self._table(STAYS, self._stays_schema(), ["start_ns", "duration_ns"])
        self._by_event = [self._columns.of_event(each) for each in capture.events]
        self._tables: dict[int, _Table] = {}
        names = [*(each.event.name for each in capture.events), NO_EVENT]
        self._names = self._columns.texts(names)
        self._stays: Stays = stays_of(capture)
        # hyp_enter and hyp_exit have one table of reasons (SPEC F.4).
        self._reasons = self._columns.texts(reason_names(capture.events, REASONS))
        places = [_PLACES.get(place, "") for place in range(max(_PLACES) + 1)]
        self._places = self._columns.texts(places)
        # One row group is written while the next one is made.
        self._writing = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def _table(self, name: str, schema: Any, plain: Sequence[str]) -> _Table:
        path = self._out / name / self._below / self._name
        refuse_existing(path, force=self._force)
        return _Table(self._arrow, path, schema, plain)

    def _all_schema(self) -> Any:
        arrow = self._arrow
        return arrow.schema([
            ("time_ns", arrow.int64()), ("cpu", arrow.int32()),
            ("event", self._columns.name_type(2)), ("id", arrow.int32()), ("lost", arrow.int64()),
        ])  # fmt: skip

    def _stays_schema(self) -> Any:
        arrow, name = self._arrow, self._columns.name_type(1)
        return arrow.schema([
            ("start_ns", arrow.int64()), ("duration_ns", arrow.int64()), ("cpu", arrow.int32()),
            ("place", name), ("reason", arrow.int32()), ("reason_name", name),
            ("exit_reason", arrow.int32()), ("exit_reason_name", name), ("vcpu", arrow.int32()),
        ])  # fmt: skip

    def _add_all(self, batch: Batch) -> None:
        arrow, nr, array = self._arrow, len(batch), self._columns.array
        self._all.add([
            array(arrow.int64(), nr, batch.column("time")),
            array(arrow.int32(), nr, batch.cpus()),
            self._columns.names(nr, batch.column("event"), self._names),
            array(arrow.int32(), nr, batch.ids()),
            self._lost(nr, batch.column("lost")),
        ])  # fmt: skip

    def _lost(self, nr: int, lost: bytes) -> Any:
        """NULL where nobody knows how many."""
        unknown = _LOST_UNKNOWN.to_bytes(8, "little")
        array = self._columns.array(self._arrow.int64(), nr, lost)
        if unknown not in lost:
            return array
        return self._arrow.array([None if each == -1 else each for each in array.to_pylist()])

    def _add_event(self, rows: Rows) -> None:
        columns = self._by_event[rows.key]
        if rows.key not in self._tables:
            schema = self._arrow.schema([(column.name, column.type) for column in columns])
            plain = [column.name for column in columns if column.plain]
            name = self._capture.events[rows.key].event.name
            self._tables[rows.key] = self._table(name, schema, plain)
        self._tables[rows.key].add([column.make(rows) for column in columns])

    def _add_stays(self) -> None:
        arrow, nr, array = self._arrow, len(self._stays), self._columns.array
        column, names = self._stays.column, self._columns.names
        int32, int64 = arrow.int32(), arrow.int64()
        self._stays_table.add([
            array(int64, nr, column("start")),
            array(int64, nr, column("duration")),
            array(int32, nr, self._stays.cpus()),
            names(nr, column("place"), self._places),
            array(int32, nr, column("reason")),
            names(nr, column("reason_slot"), self._reasons),
            array(int32, nr, column("exit_reason")),
            names(nr, column("exit_slot"), self._reasons),
            array(int32, nr, column("vcpu")),
        ])  # fmt: skip

    def _all_tables(self) -> list[_Table]:
        return [self._all, self._stays_table, *self._tables.values()]

    def add(self, batch: Batch) -> None:
        """Take the events of `batch`. Raises OSError ENOSPC; the files can be read then."""
        self._stays.take(batch)
        try:
            self._add_all(batch)
            self._add_stays()
            for rows in batch.by_event():
                if rows.key < len(self._by_event):
                    self._add_event(rows)
            if sum(table.pending for table in self._all_tables()) > MAX_PENDING:
                self._flush()
        except OSError as error:
            raise self._explained(self._out, error) from None

    def _flush(self) -> None:
        """Have written what is pending. Raises OSError that writing has had so far."""
        self._wait()
        ready = [(table, table.take()) for table in self._all_tables()]

        def write() -> None:
            for table, rows in ready:
                if rows is not None:
                    table.write(rows)

        self._written = self._writing.submit(write)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def abandon(self) -> None:
        """End the files with what has been written."""
        self._writing.shutdown()
        for table in self._all_tables():
            with contextlib.suppress(OSError):
                table.close()

    @staticmethod
    def _explained(out: Path, error: OSError) -> OSError:
        why = f"{error.strerror}; what was written before can be read"
        return OSError(error.errno, why, str(out))

    def close(self, counts: Sequence[CpuCount]) -> None:  # noqa: ARG002
        """Write the rest."""
        try:
            self._flush()
            self._writing.shutdown()
            self._wait()
            for table in self._all_tables():
                table.close()
        except OSError as error:
            raise self._explained(self._out, error) from None
