"""Perfetto traces: what its UI and trace_processor show of a hypervisor.

* Events of ftrace in bundles, those that Perfetto knows as typed ones: its own "pkVM Hypervisor
  CPU n" tracks come from these. They have no pid; trace_processor wants one, so it is 0.
* Tracks of ours: of each CPU, with a slice from hyp_enter to hyp_exit that has the name of the
  reason, and all other events as instants; of each vCPU, where it ran; and how many events were
  lost.

Slices of one track have to nest: an end closes what was begun last. A vCPU can seem to run on two
CPUs at once (those of two VMs have one number, or two CPUs' clocks differ), so it has a track for
each CPU. They have one name, by which Perfetto shows them as one.

The schema is that of the package `perfetto`; C encodes what there is of each event.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from hypervisor_model import FieldInfo
from hyptrace.capture import Capture
from hyptrace.decoder import (
    CPU_SHIFT,
    GUEST,
    REASONS,
    Batch,
    CpuCount,
    PacketEncoder,
    PacketEvent,
    PacketField,
    Packets,
    Stays,
    is_number,
)
from hyptrace.formats import Described
from hyptrace.output import OutFile
from hyptrace.reasons import ENTER, EXIT, reason_names, stays_of

_SEQUENCE = 1
_FIRST_GENERIC = 65536  # the least number in FtraceEvent that is of no known event
_CLEARED, _NEEDS = 1, 2  # SEQ_INCREMENTAL_STATE_CLEARED, SEQ_NEEDS_INCREMENTAL_STATE

# Tracks: these, plus the number of the CPU or vCPU; of a vCPU, also the CPU's << CPU_SHIFT.
_CPU_TRACKS = 1 << 32
_LOST_TRACKS = 2 << 32
_VCPU_TRACKS = 3 << 32
_PARENT = 1

_MODULE = "perfetto.protos.perfetto.trace.perfetto_trace_pb2"


def missing_extra(what: str) -> click.ClickException:
    """What to do when a package that `hyptracefs[convert]` brings is not there."""
    return click.ClickException(
        f"the package {what!r} is not installed: pip install 'hyptracefs[convert]'"
    )


def _schema() -> Any:
    try:
        return importlib.import_module(_MODULE)
    except ImportError:
        raise missing_extra("perfetto") from None


# Where struct pf_schema has the number of which field: message, field.
_NUMBERS = {
    "packet": ("Trace", "packet"),
    "timestamp": ("TracePacket", "timestamp"),
    "sequence_id": ("TracePacket", "trusted_packet_sequence_id"),
    "sequence_flags": ("TracePacket", "sequence_flags"),
    "track_event": ("TracePacket", "track_event"),
    "ftrace_events": ("TracePacket", "ftrace_events"),
    "bundle_cpu": ("FtraceEventBundle", "cpu"),
    "bundle_event": ("FtraceEventBundle", "event"),
    "bundle_lost": ("FtraceEventBundle", "lost_events"),
    "event_timestamp": ("FtraceEvent", "timestamp"),
    "event_pid": ("FtraceEvent", "pid"),
    "type": ("TrackEvent", "type"),
    "track_uuid": ("TrackEvent", "track_uuid"),
    "name_iid": ("TrackEvent", "name_iid"),
    "annotations": ("TrackEvent", "debug_annotations"),
    "counter_value": ("TrackEvent", "counter_value"),
    "annotation_name_iid": ("DebugAnnotation", "name_iid"),
    "annotation_int": ("DebugAnnotation", "int_value"),
    "annotation_uint": ("DebugAnnotation", "uint_value"),
}
_TYPES = {
    "type_begin": "TYPE_SLICE_BEGIN",
    "type_end": "TYPE_SLICE_END",
    "type_instant": "TYPE_INSTANT",
    "type_counter": "TYPE_COUNTER",
}


def _numbers(proto: Any) -> dict[str, int]:
    numbers = {
        name: getattr(proto, message).DESCRIPTOR.fields_by_name[field].number
        for name, (message, field) in _NUMBERS.items()
    }
    types = {name: getattr(proto.TrackEvent, of) for name, of in _TYPES.items()}
    return {**numbers, **types, "needs_state": _NEEDS}


class _Interned:
    """Texts that packets refer to by number, from 1 on."""

    def __init__(self) -> None:
        self.iids: dict[str, int] = {}

    def iid(self, text: str) -> int:
        return self.iids.setdefault(text, len(self.iids) + 1)


def _typed(proto: Any, event: Described) -> Any:
    """The field of FtraceEvent that is for `event`; None: Perfetto does not know it."""
    fields = proto.FtraceEvent.DESCRIPTOR.fields_by_name
    return fields.get(f"{event.system}_{event.event.name}") or fields.get(
        f"hypervisor_{event.event.name}"
    )


def _generic_type(proto_field: Any, field: FieldInfo) -> int:
    signed, unsigned = proto_field.TYPE_INT64, proto_field.TYPE_UINT64
    number: int = signed if field.signed else unsigned
    return number


def _describe_generic(proto: Any, number: int, event: Described) -> bytes:
    """A field of a bundle that describes `event`, encoded."""
    pb2 = importlib.import_module("google.protobuf.descriptor_pb2")
    descriptor = pb2.DescriptorProto(name=event.event.name)
    for index, field in enumerate(filter(is_number, event.fields)):
        descriptor.field.add(
            name=field.name, number=index + 1, label=pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=_generic_type(pb2.FieldDescriptorProto, field),
        )  # fmt: skip
    bundle = proto.FtraceEventBundle()
    bundle.generic_event_descriptors.add(
        field_id=number,
        group_name=event.system,
        event_descriptor=descriptor.SerializeToString(),
    )
    data: bytes = bundle.SerializeToString()
    return data


class _Description:
    """How the events of a capture are encoded."""

    def __init__(self, proto: Any, capture: Capture, reasons: Sequence[str]) -> None:
        self._proto = proto
        self.names, self.arguments = _Interned(), _Interned()
        self.descriptors = b""
        self.events = [self._event(nr, each) for nr, each in enumerate(capture.events)]
        self.packets = Packets(
            schema=_numbers(proto),
            sequence_id=_SEQUENCE,
            events=self.events,
            reason_iids=[self.names.iid(reason) for reason in reasons],
            guest_iid=self.names.iid("guest"),
            cpu_iid=self.arguments.iid("cpu"),
            vcpu_iid=self.arguments.iid("vcpu"),
            cpu_tracks=_CPU_TRACKS,
            lost_tracks=_LOST_TRACKS,
            vcpu_tracks=_VCPU_TRACKS,
            descriptors=self.descriptors,
        )

    def _event(self, nr: int, event: Described) -> PacketEvent:
        fields = list(filter(is_number, event.fields))
        typed = _typed(self._proto, event)
        if typed is None:
            number = _FIRST_GENERIC + nr
            self.descriptors += _describe_generic(self._proto, number, event)
            numbers = {field.name: index + 1 for index, field in enumerate(fields)}
        else:
            number = typed.number
            numbers = {field.name: field.number for field in typed.message_type.fields}
        is_slice = event.event.name in {ENTER, EXIT}
        packet_fields = [
            PacketField(field, numbers.get(field.name, 0), self.arguments.iid(field.name))
            for field in fields
        ]
        name_iid = 0 if is_slice else self.names.iid(event.event.name)
        return PacketEvent(number, name_iid, packet_fields)


class _Guest(NamedTuple):
    """A vCPU on a CPU."""

    vcpu: int
    cpu: int


class PerfettoSink:
    """Writes packets."""

    def __init__(self, capture: Capture, out: OutFile) -> None:
        self._proto = _schema()
        self._out = out
        self._capture = capture
        reasons = reason_names(capture.events, REASONS)
        self._description = _Description(self._proto, capture, reasons)
        self._encoder = PacketEncoder(self._description.packets, capture.max_cpu)
        self._stays: Stays = stays_of(capture)
        self._cpus: set[int] = set()
        self._guests: set[_Guest] = set()
        out.write(self._begin())

    def _packets(self, packets: Iterable[Any]) -> bytes:
        data: bytes = self._proto.Trace(packet=packets).SerializeToString()
        return data

    def _begin(self) -> bytes:
        proto, of = self._proto, self._description
        first = proto.TracePacket(
            trusted_packet_sequence_id=_SEQUENCE, sequence_flags=_CLEARED | _NEEDS
        )
        for text, iid in of.names.iids.items():
            first.interned_data.event_names.add(iid=iid, name=text)
        for text, iid in of.arguments.iids.items():
            first.interned_data.debug_annotation_names.add(iid=iid, name=text)
        return self._packets([first, self._track(_PARENT, "Hypervisor", parent=0)])

    def _track(self, uuid: int, name: str, *, parent: int = _PARENT, counter: bool = False) -> Any:
        packet = self._proto.TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        track = packet.track_descriptor
        track.uuid, track.name = uuid, name
        if parent:
            track.parent_uuid = parent
        if counter:
            track.counter.SetInParent()
        return packet

    def _new_tracks(self, cpus: set[int], guests: set[_Guest]) -> Iterator[Any]:
        """Those of CPUs and vCPUs that have not been seen: a track comes before its events."""
        for cpu in sorted(cpus - self._cpus):
            yield self._track(_CPU_TRACKS + cpu, f"Hypervisor CPU {cpu}")
            yield self._track(_LOST_TRACKS + cpu, f"Lost events CPU {cpu}", counter=True)
        for guest in sorted(guests - self._guests):
            uuid = _VCPU_TRACKS + (guest.vcpu & 0xFFFFFFFF) + (guest.cpu << CPU_SHIFT)
            yield self._track(uuid, f"vCPU {guest.vcpu}")
        self._cpus |= cpus
        self._guests |= guests

    def _ran(self) -> set[_Guest]:
        """VCPUs that ran, and where."""
        places = self._stays.column("place")
        vcpus = memoryview(self._stays.column("vcpu")).cast("i")
        cpus = memoryview(self._stays.column("cpu")).cast("H")
        stays = set(zip(vcpus, cpus, places, strict=True))
        return {_Guest(vcpu, cpu) for vcpu, cpu, place in stays if place == GUEST}

    def add(self, batch: Batch) -> None:
        """Write the events of `batch`, and the slices that end there."""
        self._stays.take(batch)
        cpus = set(memoryview(batch.column("cpu")).cast("H"))
        tracks = list(self._new_tracks(cpus, self._ran()))
        if tracks:
            self._out.write(self._packets(tracks))
        for piece in self._encoder.packets(batch, self._stays):
            self._out.write(piece)

    def abandon(self) -> None:
        """Leave it as it is."""
        self._out.close()

    def close(self, counts: Sequence[CpuCount]) -> None:  # noqa: ARG002
        """End the file."""
        self._out.close()
