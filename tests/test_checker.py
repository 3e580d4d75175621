"""Every workload keeps the rules, and the checker notices when one is broken."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import trio

from hypervisor_model.checker import check_trace
from hyptracefs.remote import Reader
from hyptracefs.ring_buffer import ALL_CPUS
from tests.support import EVENTS, Line, all_text, parse_lines, running, start_with

_ENOUGH = 4000


async def _recorded(workload: str, enough: int = _ENOUGH, size_kb: int = 8192) -> str:
    """What a workload does until there are enough events."""
    text = ""
    async with running(workload, cpus=2, poll_ms=1) as made:
        await made.remote.set_size(size_kb)
        reader: Reader = await made.remote.open_reader(ALL_CPUS)
        await start_with(made.remote, *EVENTS)
        while text.count("\n") < enough:
            await reader.wait()
            text += bytes(reader.try_read_text(1 << 16)).decode()
        await made.remote.stop_tracing()
        while read := bytes(reader.try_read_text(1 << 16)).decode():
            text += read
    return text


@pytest.mark.parametrize(
    "workload",
    [
        "replay",
        "guest",
        "guest:1:5",
        "guest:7",
        "storm:100000",
        "storm:100000:all",
        "chaos",
        "chaos:2",
    ],
)
async def test_workload_keeps_the_rules(workload: str) -> None:
    text = await _recorded(workload)
    assert "LOST" not in text
    assert check_trace(text.splitlines()) == []


async def test_storm_keeps_the_rules_also_where_it_loses_events() -> None:
    text = await _recorded("storm:max:all", size_kb=64)
    assert "LOST" in text
    assert check_trace(text.splitlines()) == []


async def test_chaos_has_every_event_and_a_cpu_that_is_switched_off() -> None:
    text = await _recorded("chaos", enough=20_000)
    assert {line.text.split()[0] for line in parse_lines(text) if isinstance(line, Line)} == {
        *EVENTS
    }
    assert "hyp_exit reason=psci" in text


async def test_chaos_is_merged_by_time_whatever_its_counters_do() -> None:
    async with running("chaos:7", cpus=3) as made:
        remote = made.remote
        await start_with(remote, *EVENTS, size_kb=4096)
        while min(stats.entries for stats in remote.statistics().cpus) < _ENOUGH:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await remote.stop_tracing()
        assert all(stats.overrun == 0 for stats in remote.statistics().cpus)
        reader = await remote.open_reader(ALL_CPUS)
        text = all_text(reader)
        reader.close()
    assert check_trace(text.splitlines()) == []
    lines = [line for line in parse_lines(text) if isinstance(line, Line)]
    assert all(line.usec <= later.usec for line, later in pairwise(lines))
    assert {line.cpu for line in lines} == {0, 1, 2}


def _programmed(text: str, cpu: int) -> list[str]:
    """The events of a CPU without hypercalls that the host makes beside them."""
    events = "".join(
        f"{line.text}\n" for line in parse_lines(text) if isinstance(line, Line) and line.cpu == cpu
    )
    ours = r"hyp_enter reason=hvc vcpu=0\nhost_hcall id=[0-9] invalid=0\nhyp_exit .*\n"
    return re.sub(ours, "", events).splitlines()


@pytest.mark.parametrize("cpu", [0, 1])
async def test_same_seed_gives_the_same_events(cpu: int) -> None:
    runs = [_programmed(await _recorded(f"guest:4:{seed}"), cpu) for seed in (3, 3, 4)]
    length = min(map(len, runs)) - 10
    assert length > _ENOUGH / 4
    assert runs[0][:length] == runs[1][:length]
    assert runs[0][:length] != runs[2][:length]


def _lines(*events: str) -> list[str]:
    return [f"[000]\t    1.{usec:06}: {event}" for usec, event in enumerate(events)]


_ENTER, _EXIT = "hyp_enter reason=hvc vcpu=0", "hyp_exit reason=eret_host vcpu=0"


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ((_ENTER, _ENTER), "line 2: CPU 000: enters by hvc, having entered by hvc"),
        ((_EXIT, _EXIT), "line 2: CPU 000: leaves by eret_host, having left by eret_host"),
        ((_EXIT, "hyp_enter reason=guest_exit vcpu=1"), "enters by guest_exit, having left by"),
        (("hyp_enter reason=nap vcpu=0",), "nothing enters by nap"),
        (("hyp_exit reason=hvc vcpu=0",), "nothing leaves by hvc"),
        ((_ENTER, "hyp_exit reason=psci vcpu=0"), "leaves by psci, having entered by hvc"),
        ((_EXIT, "selftest id=1"), "selftest outside of the hypervisor"),
        ((_ENTER, "host_smc id=1 forwarded=0"), "host_smc in a visit that entered by hvc"),
        (("func ip=1",), "no such event: func"),
        (("hyp_enter  ",), "hyp_enter without a reason"),
    ],
)
def test_broken_rule_is_noticed(events: tuple[str, ...], wrong: str) -> None:
    [found] = check_trace(_lines(*events))
    assert wrong in found


def test_falling_time_and_lines_of_other_kinds_are_noticed() -> None:
    later, earlier = _lines(_ENTER, _EXIT)[::-1]
    assert check_trace([later, earlier, "?"]) == [
        "line 2: CPU 000: time falls by 1 us",
        "line 3: no line of a trace_pipe: '?'",
    ]


def test_nothing_is_held_against_a_cpu_that_lost_events() -> None:
    enter, _ = _lines(_ENTER, _EXIT)
    assert check_trace([enter, "CPU:0 [LOST 1 EVENTS]", enter]) == []
