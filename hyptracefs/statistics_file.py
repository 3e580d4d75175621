"""The text of `statistics`: what the hypervisor has counted, and what the host sees of it.

A line is words with a blank between them. The first one or two say what it is about; names
with their numbers follow. Each part comes from its own side of the border, so that they can be
compared: `written` of a CPU is what the hypervisor knows, `entries` what the host has been told.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields

from hyptracefs.files import Control, Place
from hyptracefs.hypervisor_statistics import HypervisorStatistics
from hyptracefs.remote import Remote, RemoteStatistics
from hyptracefs.ring_buffer import Hvc

# What its length is said to be is a multiple, as in sysfs: tools then read to the end.
_LENGTH_UNIT = 4096
_HEAD_BYTES = 3072
_CPU_BYTES = 512

_TABLES = ("results", "cpus")


def _words(about: str, **numbers: int) -> str:
    return " ".join((about, *(f"{name} {number:d}" for name, number in numbers.items())))


def _call_name(number: int) -> str:
    return Hvc(number).name.lower() if number in list(Hvc) else str(number)


def _error_name(number: int) -> str:
    return errno.errorcode.get(number, f"errno_{number}")


def _call_line(number: int, results: Counter[int]) -> str:
    errors = {_error_name(error): results[error] for error in sorted(results) if error}
    numbers = {"calls": results.total(), "errors": sum(errors.values()), **errors}
    return _words(f"hypercall {_call_name(number)}", **numbers)


def _hypervisor_lines(statistics: HypervisorStatistics) -> Iterator[str]:
    for field in fields(statistics):
        if field.name not in _TABLES:
            yield _words("hypervisor", **{field.name: getattr(statistics, field.name)})
    for number in sorted({*Hvc, *statistics.results}):
        yield _call_line(number, statistics.results.get(number, Counter()))
    for cpu, counters in enumerate(statistics.cpus):
        yield _words(f"hypervisor cpu{cpu}", **counters._asdict())


def _host_lines(statistics: RemoteStatistics) -> Iterator[str]:
    for field in fields(statistics):
        if field.name not in _TABLES:
            yield _words("host", **{field.name: getattr(statistics, field.name)})
    for cpu, counters in enumerate(statistics.cpus):
        yield _words(f"host cpu{cpu}", **asdict(counters))


# Why there is nothing to say for the hypervisor, in one word for scripts.
_SILENCE = {errno.EOPNOTSUPP: "uncounted", errno.ENODEV: "gone"}


def _ask(remote: Remote) -> Iterator[str]:
    """What there is of the hypervisor's part, and its state before it."""
    try:
        statistics = remote.hypervisor_statistics()
    except OSError as error:
        yield f"hypervisor state {_SILENCE.get(error.errno or 0, 'broken')}"
        yield f"# {error.strerror}"
    else:
        yield "hypervisor state present"
        yield from _hypervisor_lines(statistics)


def show_statistics(place: Place) -> str:
    """Can be shown at any time: also without a hypervisor, or with one that does not count.

    The hypervisor is asked first: what it had written then, the host sees when it looks.
    """
    lines = [*_ask(place.remote), *_host_lines(place.remote.statistics())]
    return "".join(f"{line}\n" for line in lines)


class _Statistics(Control):
    """A text that is not made to be measured: to make it is a hypercall, and it grows."""

    async def length(self, place: Place) -> int:
        most = _HEAD_BYTES + place.remote.cpus * _CPU_BYTES
        return -(-most // _LENGTH_UNIT) * _LENGTH_UNIT


STATISTICS = _Statistics(show_statistics)
