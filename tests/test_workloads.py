"""What the recorded session becomes as scripts of pCPUs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from hypervisor_model import WORKLOADS, Step, load_workload, workloads
from tests.support import is_circle_of, recorded_texts, step_text

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


def test_unknown_workload_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no workload 'nap': there are idle, replay"):
        load_workload("nap", 2)
    assert sorted(WORKLOADS) == ["idle", "replay"]


_LINE = "[001]\t   95.109691: hyp_exit reason=eret_host vcpu=0\n"


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (_LINE + "CPU:1 [LOST 5 EVENTS]\n", "line 2 of the recording is no hyp_enter or hyp_exit"),
        (_LINE + "[001]\t   95.1: hyp_exit reason=eret_host vcpu=0\n", "line 2 of the recording"),
        ("[001]\t   95.109691: selftest id=1\n" + _LINE, "line 1 of the recording"),
        ("\n" + _LINE, "line 1 of the recording"),
        (_LINE.replace("exit reason=eret_host", "enter reason=hvc"), "never returns to the host"),
    ],
)
def test_broken_recording_is_refused_with_its_line(
    recording: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recording.txt"
    path.write_text(recording, encoding="ascii")
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
