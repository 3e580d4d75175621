"""What the recorded session becomes as scripts of pCPUs."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from pathlib import Path

import pytest

from hypervisor_model import MIXES, WORKLOADS, Step, load_workload, workloads
from tests.support import EVENTS, is_circle_of, recorded_texts, step_text

_CPUS = pytest.mark.parametrize("cpus", [1, 2, 3, 4])


def _script(cpus: int) -> list[Step]:
    """The only script: the recording is of one CPU, number 1."""
    scripts = load_workload("replay", cpus).scripts
    assert list(scripts) == [1 % cpus]
    return scripts[1 % cpus]


@_CPUS
def test_replay_is_a_rotation_of_the_recording(cpus: int) -> None:
    played = [step_text(step) for step in _script(cpus)]
    assert len(played) == 3864
    assert is_circle_of(played, recorded_texts())


@_CPUS
def test_replay_begins_and_ends_in_the_host(cpus: int) -> None:
    script = _script(cpus)
    assert script[0].enter
    assert script[-1].in_host


@_CPUS
def test_replay_enters_and_leaves_in_turns(cpus: int) -> None:
    script = _script(cpus)
    assert all(step.enter != following.enter for step, following in pairwise(script))


@_CPUS
def test_times_of_replay_rise_from_0_and_stay_below_the_period(cpus: int) -> None:
    times = [step.at for step in _script(cpus)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] < load_workload("replay", cpus).period


def test_recorded_pauses_are_kept() -> None:
    script = _script(2)
    lines = workloads.RECORDING.read_text(encoding="ascii").splitlines()
    times = [int(line.split()[1].rstrip(":").replace(".", "")) * 1000 for line in lines]
    recorded = [later - time for time, later in pairwise(times)]
    played = [following.at - step.at for step, following in pairwise(script)]
    seam = 2_000
    assert is_circle_of(played, [*recorded, seam])


@pytest.mark.parametrize("cpus", [1, 2, 1024])
def test_idle_has_no_scripts(cpus: int) -> None:
    assert load_workload("idle", cpus).scripts == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nap", "no workload 'nap': there are chaos, guest, idle, replay, storm"),
        ("", "no workload ''"),
        ("idle:1", "workload idle: '1': it takes no arguments"),
        ("replay:file", "workload replay[:FILE]: file: not an absolute path"),
        ("replay:/nosuch", "workload replay[:FILE]: /nosuch: No such file or directory"),
        ("replay:/dev/null", "/dev/null: no hyp_enter with its hyp_exit to the host"),
        ("guest:0", "workload guest[:VCPUS[:SEED]]: VCPUS '0' is not a number from 1 to 1024"),
        ("guest:2:-1", "SEED '-1' is not a number from 0 to"),
        ("storm", "workload storm:RATE[:MIX]: RATE '' is not a number from 1 to 100000000"),
        ("storm:1e6", "RATE '1e6' is not a number"),
        ("storm:1:some", "no MIX 'some': there are all, enter-exit"),
        ("chaos:x", "workload chaos[:SEED]: SEED 'x' is not a number from 0 to"),
    ],
)
def test_bad_workload_is_refused_with_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        load_workload(text, 2)


def test_workloads_are_those_of_the_readme() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [kind.usage for kind in WORKLOADS.values() if f"`{kind.usage}`" not in readme] == []


_LINE = "[001]\t   95.109691: hyp_exit reason=eret_host vcpu=0\n"


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (_LINE + "[001]\t   95.1: hyp_exit reason=eret_host vcpu=0\n", "line 2: no line of a"),
        ("\n" + _LINE, "line 1: no line of a trace_pipe"),
        (_LINE + _LINE.replace("95.", "94."), "line 2: the time of CPU 1 falls"),
        (_LINE.replace("exit reason=eret_host", "enter reason=hvc"), "no hyp_enter with its"),
        ("\N{BULLET}", "not the text of a trace_pipe"),
    ],
)
def test_broken_recording_is_refused_with_its_line(
    recording: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recording.txt"
    path.write_text(recording, encoding="utf-8")
    monkeypatch.setattr(workloads, "RECORDING", path)
    with pytest.raises(ValueError, match=reason):
        load_workload("replay", 2)


def test_cpus_of_a_recording_share_the_cpus_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(
        f"[{cpu:03}]\t   95.1000{10 * cpu + enter}: hyp_{what} reason={reason} vcpu=0\n"
        for cpu in (2, 3, 4)
        for enter, what, reason in ((0, "enter", "hvc"), (1, "exit", "eret_host"))
    )
    path = tmp_path / "recording.txt"
    path.write_text(lines, encoding="ascii")
    monkeypatch.setattr(workloads, "RECORDING", path)
    scripts = load_workload("replay", 2).scripts
    assert {cpu: len(script) for cpu, script in scripts.items()} == {0: 4, 1: 2}


_PIPE = """\
# comment
[000]	    1.000000: hyp_exit reason=smc vcpu=0
[000]	    1.000001: hyp_enter reason=hvc vcpu=0
[000]	    1.000002: host_hcall id=7 invalid=0
[001]	    1.000002: hyp_enter reason=hvc vcpu=0
[000]	    1.000003: brand_new id=7
[000]	    1.000003: UNKNOWN id=77
[000]	    1.000004: hyp_exit reason=eret_host vcpu=-1
CPU:1 [LOST 5 EVENTS]
[001]	    1.000005: host_hcall id=8 invalid=0
[001]	    1.000005: hyp_exit reason=eret_host vcpu=0
[001]	    1.000006: hyp_enter reason=host_abort vcpu=0
[001]	    1.000007: host_mem_abort esr=0x93800007 addr=0xfffffffffffffff8
[001]	    1.000008: hyp_exit reason=eret_host vcpu=0
[000]	    1.000009: hyp_enter reason=guest_exit vcpu=9
"""


def test_what_a_file_has_of_whole_visits_is_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a:b.txt"
    path.write_text(_PIPE, encoding="ascii")
    with caplog.at_level(logging.WARNING):
        workload = load_workload(f"replay:{path}", 2)
    assert workload.scripts == {
        0: [
            Step(6000, "hyp_enter", ("hvc", 0)),
            Step(7000, "host_hcall", (7, 0)),
            Step(9000, "hyp_exit", ("eret_host", -1)),
        ],
        1: [
            Step(0, "hyp_enter", ("host_abort", 0)),
            Step(1000, "host_mem_abort", (0x93800007, 2**64 - 8)),
            Step(2000, "hyp_exit", ("eret_host", 0)),
        ],
    }
    assert [message.split(": ", 2)[2] for message in caplog.messages] == [
        "2 unknown events left out",
        "1 gaps left out",
        "5 events of no whole visit left out",
    ]


def _file(directory: Path, lines: str) -> Path:
    path = directory / "recording.txt"
    path.write_text(lines, encoding="ascii")
    return path


def test_events_that_are_missing_before_the_first_one_are_nothing(tmp_path: Path) -> None:
    visit = _PIPE.splitlines()[11:14]
    path = _file(tmp_path, "\n".join(["CPU:1 [LOST 5 EVENTS]", *visit]) + "\n")
    [script] = load_workload(f"replay:{path}", 2).scripts.values()
    assert [step.event for step in script] == ["hyp_enter", "host_mem_abort", "hyp_exit"]


def test_a_visit_of_which_the_end_is_missing_gives_way_to_the_next(tmp_path: Path) -> None:
    enter, *rest = _PIPE.splitlines()[11:14]
    cut_short = enter.replace("host_abort", "hvc").replace("1.000006", "1.000001")
    path = _file(tmp_path, "\n".join([cut_short, enter, *rest]) + "\n")
    [script] = load_workload(f"replay:{path}", 2).scripts.values()
    assert [step.args[0] for step in script] == ["host_abort", 0x93800007, "eret_host"]


def test_visits_of_cpus_that_share_a_cpu_wait_for_each_other(tmp_path: Path) -> None:
    lines = "".join(
        f"[{cpu:03}]\t    1.00000{cpu + 4 * step}: hyp_{what} reason={reason} vcpu={cpu}\n"
        for cpu in range(2)
        for step, what, reason in ((0, "enter", "hvc"), (1, "exit", "eret_host"))
    )
    path = tmp_path / "recording.txt"
    path.write_text(lines, encoding="ascii")
    [script] = load_workload(f"replay:{path}", 1).scripts.values()
    assert [(step.at, step.event, step.args[1]) for step in script] == [
        (0, "hyp_enter", 0),
        (4000, "hyp_exit", 0),
        (4000, "hyp_enter", 1),
        (8000, "hyp_exit", 1),
    ]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("rate", [1, 20_000, 20_001, 1_000_000, 99_999_999])
def test_storm_has_its_rate(rate: int, mix: str) -> None:
    workload = load_workload(f"storm:{rate}:{mix}", 3)
    assert list(workload.scripts) == [0, 1, 2]
    for script in workload.scripts.values():
        assert len(script) * 1_000_000_000 / workload.period == pytest.approx(rate, rel=1e-3)
        assert script[-1].at < workload.period


@pytest.mark.parametrize(
    ("text", "cpus", "expected"),
    [
        ("guest", 3, {0: 2, 1: 1, 2: 1}),
        ("guest:2", 3, {0: 1, 1: 1}),
        ("guest:5:9", 2, {0: 3, 1: 2}),
    ],
)
def test_vcpus_are_spread_over_the_cpus(text: str, cpus: int, expected: dict[int, int]) -> None:
    programs = load_workload(text, cpus).programs
    assert {cpu: program.vcpus for cpu, program in programs.items()} == expected


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_is_in_the_mix_of_all(event: str) -> None:
    assert event in [name for name, _ in MIXES["all"]]
