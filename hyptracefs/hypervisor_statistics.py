"""What a hypervisor has counted, as it says it: hyp_statistics_msg of protocol.h, checked."""

from __future__ import annotations

import errno
import struct
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

# size, nr_results, nr_cpus, zero; then the numbers in the order of HypervisorStatistics
_HEAD = struct.Struct("<4I6Q")
_RESULT = struct.Struct("<IIQ")
_CPU = struct.Struct("<6Q")


class CpuStatistics(NamedTuple):
    """Events of a CPU: since the last load or reset, and since the hypervisor began."""

    written: int
    overrun: int
    dropped: int
    ever_written: int
    ever_overrun: int
    ever_dropped: int


@dataclass(frozen=True)
class HypervisorStatistics:
    """Since the hypervisor began, for all hosts; pages_shared: now."""

    results: dict[int, Counter[int]]  # by number of the call, by errno; 0: success
    cpus: tuple[CpuStatistics, ...]
    unknown_calls: int
    refused_messages: int
    hosts: int
    refused_hosts: int
    pages_shared: int
    most_pages_shared: int


def _nonsense(what: str) -> OSError:
    return OSError(errno.EPROTO, f"hypervisor: its statistics make no sense: {what}")


def _results(part: bytes) -> dict[int, Counter[int]]:
    results: dict[int, Counter[int]] = {}
    for call, error, count in _RESULT.iter_unpack(part):
        results.setdefault(call, Counter())[error] += count
    return results


def _check(message: bytes, cpus: int) -> None:
    if len(message) < _HEAD.size:
        raise _nonsense(f"{len(message)} bytes")
    size, nr_results, nr_cpus, *_ = _HEAD.unpack_from(message)
    if nr_cpus != cpus:
        raise _nonsense(f"of {nr_cpus} CPUs, where there are {cpus}")
    needed = _HEAD.size + nr_results * _RESULT.size + nr_cpus * _CPU.size
    if not len(message) == size == needed:
        raise _nonsense(f"{len(message)} bytes, said to be {size}, {needed} by what is in them")


def decode_statistics(message: bytes, cpus: int) -> HypervisorStatistics:
    """The statistics of a hypervisor that has `cpus` CPUs. Raises OSError EPROTO."""
    _check(message, cpus)
    cpus_at = len(message) - cpus * _CPU.size
    return HypervisorStatistics(
        _results(message[_HEAD.size : cpus_at]),
        tuple(map(CpuStatistics._make, _CPU.iter_unpack(message[cpus_at:]))),
        *_HEAD.unpack_from(message)[4:],
    )
