"""What hyptrace makes of the texts of a tracing directory; no mount."""

from __future__ import annotations

import pytest

from hyptrace.tracing import matching, parse_cpus, parse_statistics, parse_stats

STATS = """\
entries: 3
overrun: 20
commit overrun: 1
bytes: 72
oldest event ts:  5000.000001
now ts: 27159.985370
dropped events: 7
read events: 100
"""


def test_stats() -> None:
    counters = parse_stats(STATS)
    assert (counters.unread, counters.read, counters.unread_bytes) == (3, 100, 72)
    assert counters.lost == 20 + 1 + 7
    assert counters.written == 3 + 21 + 100
    assert counters.now_ns == 27_159_985_370_000


def test_statistics_are_a_table_of_who_and_what() -> None:
    text = (
        "hypervisor state present\nhypervisor hosts 2\n# why\n"
        "hypercall tracing_load calls 3 errors 1 ENODEV 1\n"
        "host loaded 1\nhost cpu0 entries 816 lost 5\n"
    )
    assert parse_statistics(text) == {
        "hypervisor": {"state": "present", "hosts": 2},
        "hypercall tracing_load": {"calls": 3, "errors": 1, "ENODEV": 1},
        "host": {"loaded": 1},
        "host cpu0": {"entries": 816, "lost": 5},
    }


EVENTS = ["hypervisor:hyp_enter", "hypervisor:hyp_exit", "hypervisor:host_smc", "other:hyp_exit"]


@pytest.mark.parametrize(
    ("pattern", "which"),
    [
        ("hypervisor", [0, 1, 2]),
        ("hyp_exit", [1, 3]),
        ("hyp_*", [0, 1, 3]),
        ("hypervisor:hyp_*", [0, 1]),
        (":hyp_exit", [1, 3]),
        ("other:", [3]),
        ("hyp", []),
        ("*:nothing", []),
    ],
)
def test_patterns_are_those_of_set_event(pattern: str, which: list[int]) -> None:
    assert matching(EVENTS, pattern) == [EVENTS[i] for i in which]


def test_lists_of_cpus() -> None:
    assert parse_cpus("3") == [3]
    assert parse_cpus("4,0-2, 1") == [0, 1, 2, 4]


@pytest.mark.parametrize("text", ["", "a", "1-", "2-1", "1,,2", "-1", "٣"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="no list of CPUs"):
        parse_cpus(text)
