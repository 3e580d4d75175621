"""A Perfetto trace of ours against the capture that it was made of.

`hyptrace convert --to json` says what events there were; what a reader of the trace then has to
show is worked out here, by brute force. The reader is Perfetto's own schema (the package
`perfetto`), with slices paired as trace_processor does it: all events of a track in the order of
their times, those of one time in the order of the file, and an end closes what was begun last.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb2

from hyptrace.cli import main as hyptrace

ENTER, EXIT = "hyp_enter", "hyp_exit"
UNCLOSED = -1  # the duration of a slice without an end
_SHOWN = 5  # lines of each difference

# What of the events is not among their fields; and lists and texts, which Perfetto gets none of.
_NO_FIELDS = {"time_ns", "cpu", "event"}

Fields = tuple[tuple[str, int], ...]


class Slice(NamedTuple):
    """An instant is one of 0 ns."""

    track: str
    start_ns: int
    duration_ns: int
    name: str
    args: Fields


class Shown(NamedTuple):
    """What a reader shows.

    events: (cpu, time, name, fields) of each event of ftrace
    lost: (cpu, time) of the first event behind a loss
    slices: ours, of CPUs and vCPUs, with the instants
    counted: (cpu, time, events lost up to then)
    """

    events: Counter[tuple[int, int, str, Fields]]
    lost: Counter[tuple[int, int]]
    slices: Counter[Slice]
    counted: Counter[tuple[int, int, int]]


def _numbers(fields: Mapping[str, Any]) -> Fields:
    """As SQL has them: of 64 bits, with a sign."""
    return tuple(
        sorted(
            (name, (value + (1 << 63)) % (1 << 64) - (1 << 63))
            for name, value in fields.items()
            if isinstance(value, int)
        )
    )


# --- what there has to be ---------------------------------------------------------------------


class _Cpu:
    """What is known of a CPU while its events are read."""

    def __init__(self) -> None:
        self.last: dict[str, Any] | None = None  # of hyp_enter and hyp_exit, since the last loss
        self.lost = 0
        self.behind_loss = False


def _stay(last: Mapping[str, Any], now: Mapping[str, Any]) -> Slice | None:
    """From `last` to `now`, if that is a time in the hypervisor or in a guest."""
    start, duration = last["time_ns"], max(now["time_ns"] - last["time_ns"], 0)
    vcpu, cpu, reason = last["vcpu"], last["cpu"], str(last["reason"])
    if last["event"] == now["event"]:
        return None
    if last["event"] == ENTER:
        args = _numbers({"vcpu": vcpu})
        return Slice(f"Hypervisor CPU {cpu}", start, duration, reason, args)
    if reason == "eret_guest":
        return Slice(f"vCPU {vcpu}", start, duration, "guest", _numbers({"cpu": cpu}))
    return None


def expected(lines: Iterable[Mapping[str, Any]]) -> Shown:
    """Of the objects of `hyptrace convert --to json`."""
    shown = Shown(Counter(), Counter(), Counter(), Counter())
    cpus: dict[int, _Cpu] = {}
    for line in lines:
        cpu, time = line["cpu"], line["time_ns"]
        state = cpus.setdefault(cpu, _Cpu())
        if "lost" in line:
            # Of a loss that nobody has counted there is one event at least.
            state.lost += 1 if line["lost"] is None else line["lost"]
            state.last, state.behind_loss = None, True
            continue
        name = line["event"]
        fields = _numbers({key: line[key] for key in line if key not in _NO_FIELDS})
        if state.behind_loss:
            shown.lost[cpu, time] += 1
            shown.counted[cpu, time, state.lost] += 1
            state.behind_loss = False
        # Perfetto's schema has no fields for these two.
        shown.events[cpu, time, name, () if name in {ENTER, EXIT} else fields] += 1
        if name not in {ENTER, EXIT}:
            shown.slices[Slice(f"Hypervisor CPU {cpu}", time, 0, name, fields)] += 1
            continue
        stay = _stay(state.last, line) if state.last else None
        if stay:
            shown.slices[stay] += 1
        state.last = dict(line)
    return shown


# --- what there is ----------------------------------------------------------------------------


def _generic_types(bundle: Any) -> dict[int, Any]:
    """The message of each number that the descriptors of a bundle describe."""
    types = {}
    for each in bundle.generic_event_descriptors:
        descriptor = descriptor_pb2.DescriptorProto()
        descriptor.ParseFromString(each.event_descriptor)
        file = descriptor_pb2.FileDescriptorProto(name="generic.proto", syntax="proto2")
        file.message_type.append(descriptor)
        pool = descriptor_pool.DescriptorPool()
        found = pool.AddSerializedFile(file.SerializeToString())
        types[each.field_id] = message_factory.GetMessageClass(
            found.message_types_by_name[descriptor.name]
        )
    return types


def _event(event: Any, generic: Mapping[int, Any]) -> tuple[str, Any]:
    """Name and message of an event of ftrace."""
    known = event.WhichOneof("event")
    if known:
        return known.removeprefix("hypervisor_"), getattr(event, known)
    [unknown] = unknown_fields.UnknownFieldSet(event)
    message = generic[unknown.field_number]()
    message.ParseFromString(unknown.data)
    return message.DESCRIPTOR.name, message


def _read_bundle(bundle: Any, shown: Shown) -> None:
    generic = _generic_types(bundle)
    if bundle.lost_events:
        shown.lost[bundle.cpu, bundle.event[0].timestamp] += 1
    for event in bundle.event:
        if not event.HasField("pid"):
            raise ValueError("an event without a pid: trace_processor takes none")
        name, message = _event(event, generic)
        fields = _numbers({field.name: value for field, value in message.ListFields()})
        # What is not said is 0 in proto2 too, so what is said has to be all.
        if len(fields) != len(message.DESCRIPTOR.fields):
            raise ValueError(f"{name}: a field is missing")
        shown.events[bundle.cpu, event.timestamp, name, fields] += 1


def _args(annotations: Iterable[Any], names: Mapping[int, str]) -> Fields:
    return _numbers(
        {names[each.name_iid]: getattr(each, each.WhichOneof("value")) for each in annotations}
    )


class _Tracks:
    """Track events, in the order of their times."""

    def __init__(self, shown: Shown, first: Any) -> None:
        self._shown = shown
        self._names = {each.iid: each.name for each in first.event_names}
        self._arguments = {each.iid: each.name for each in first.debug_annotation_names}
        self._begun: dict[int, list[Slice]] = {}
        self.tracks: dict[int, str] = {}

    def take(self, time: int, event: Any) -> None:
        track = self.tracks[event.track_uuid]
        begun = self._begun.setdefault(event.track_uuid, [])
        if event.type == event.TYPE_COUNTER:
            cpu = int(track.removeprefix("Lost events CPU "))
            self._shown.counted[cpu, time, event.counter_value] += 1
        elif event.type == event.TYPE_SLICE_END:
            last = begun.pop()
            self._shown.slices[last._replace(duration_ns=time - last.start_ns)] += 1
        else:
            args = _args(event.debug_annotations, self._arguments)
            made = Slice(track, time, 0, self._names[event.name_iid], args)
            if event.type == event.TYPE_SLICE_BEGIN:
                begun.append(made)
            else:
                self._shown.slices[made] += 1

    def close(self) -> None:
        for begun in self._begun.values():
            self._shown.slices.update(each._replace(duration_ns=UNCLOSED) for each in begun)


def read_schema(trace: Path) -> Shown:
    """What Perfetto's schema finds in `trace`; ValueError: what trace_processor would not take."""
    shown = Shown(Counter(), Counter(), Counter(), Counter())
    packets = pb2.Trace()
    packets.ParseFromString(trace.read_bytes())
    tracks = _Tracks(shown, packets.packet[0].interned_data)
    events = []
    for packet in packets.packet:
        if packet.HasField("track_descriptor"):
            tracks.tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        elif packet.HasField("ftrace_events"):
            _read_bundle(packet.ftrace_events, shown)
        elif packet.HasField("track_event"):
            if packet.track_event.track_uuid not in tracks.tracks:
                raise ValueError("an event before its track")
            events.append((packet.timestamp, packet.track_event))
    for time, event in sorted(events, key=lambda each: each[0]):
        tracks.take(time, event)
    tracks.close()
    return shown


# --- both ---------------------------------------------------------------------------------------


def _parts(shown: Shown) -> dict[str, Counter[Any]]:
    return shown._asdict()


def differences(want: Shown, got: Shown) -> Iterator[str]:
    """Lines: what is not there, and what should not be."""
    for (part, wanted), found in zip(_parts(want).items(), _parts(got).values(), strict=True):
        for sign, diff in (("-", wanted - found), ("+", found - wanted)):
            some = sorted(diff.elements())
            yield from (f"{part}: {sign}{each}" for each in some[:_SHOWN])
            if len(some) > _SHOWN:
                yield f"{part}: {sign} and {len(some) - _SHOWN} more"


def convert(capture: Path, out: Path) -> Path:
    status = hyptrace(["convert", str(capture), str(out), "--force"])
    if status:
        raise SystemExit(status)
    return out


def expected_of(capture: Path, work: Path) -> Shown:
    text = convert(capture, work / "out.json").read_text(encoding="utf-8")
    return expected(map(json.loads, text.splitlines()))


def check(capture: Path, work: Path) -> list[str]:
    """Says what there was; returns the differences."""
    want = expected_of(capture, work)
    got = read_schema(convert(capture, work / "out.pftrace"))
    found = list(differences(want, got))
    counts = ", ".join(f"{part} {counted.total()}" for part, counted in _parts(got).items())
    by_name = Counter(name for _, _, name, _ in got.events.elements())
    names = ", ".join(f"{name} {nr}" for name, nr in sorted(by_name.items()))
    sys.stdout.write(f"{capture}: {counts}\n  {names}\n")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="perfetto-check", description=__doc__)
    parser.add_argument("captures", metavar="CAPTURE", nargs="+", type=Path)
    failed = False
    for capture in parser.parse_args().captures:
        with tempfile.TemporaryDirectory() as work:
            found = check(capture, Path(work))
        sys.stderr.writelines(f"{line}\n" for line in found)
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
