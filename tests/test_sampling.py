"""`hyptrace top`, without a mount: a directory of files that show what a mount would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from hyptrace import sampling
from hyptrace.sampling import CpuSample, Sample, Sampler
from hyptrace.top import batch_lines
from hyptrace.tracing import Tracing

SECOND = 1_000_000_000
HYP_EVENTS = ("hyp_enter", "hyp_exit")


class Fake:
    """A tracing directory of one CPU, and its clock."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.now = 100 * SECOND
        monkeypatch.setattr(sampling, "_boot_ns", lambda: self.now)
        (path / "per_cpu/cpu0").mkdir(parents=True)
        for name in ("host_smc", *HYP_EVENTS):
            (path / f"events/hypervisor/{name}").mkdir(parents=True)
            (path / f"events/hypervisor/{name}/enable").write_text("-")
        self.set("available_events", "hypervisor:host_smc\n" + self.names(HYP_EVENTS))
        self.set("set_event", self.names(HYP_EVENTS))
        self.set("tracing_on", "1\n")
        self.set("buffer_size_kb", "4 (loaded)\n")
        self.state()
        self.sampler = Sampler(Tracing(path))

    @staticmethod
    def names(events: Sequence[str]) -> str:
        return "".join(f"hypervisor:{name}\n" for name in events)

    def set(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def state(
        self, trace: str = "", entries: int = 0, overrun: int = 0, read: int = 0, size: int = 0
    ) -> None:
        self.set("trace", trace)
        stats = f"entries: {entries}\noverrun: {overrun}\nbytes: {size}\nread events: {read}\n"
        self.set("per_cpu/cpu0/stats", stats)

    def look(self, after_s: float = 1.0) -> CpuSample:
        [sample] = self.sample(after_s).cpus
        return sample

    def sample(self, after_s: float = 1.0) -> Sample:
        self.now += int(after_s * SECOND)
        return self.sampler.look()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


def enter(at: str, reason: str) -> str:
    return f"[000]\t  {at}: hyp_enter reason={reason} vcpu=0\n"


def leave(at: str) -> str:
    return f"[000]\t  {at}: hyp_exit reason=eret_host vcpu=0\n"


def test_time_in_the_hypervisor_by_reason(fake: Fake) -> None:
    fake.state(
        enter("100.100000", "hvc") + leave("100.200000")
        + enter("100.300000", "smc") + leave("100.700000"),
        entries=4, size=1024,
    )  # fmt: skip
    sample = fake.look()
    assert sample.shares == pytest.approx({"smc": 0.4, "hvc": 0.1})
    assert list(sample.shares) == ["smc", "hvc"]
    assert (sample.coverage, sample.fill) == (1.0, 0.25)
    assert sample.rate("hyp_enter") == 2.0
    assert sample.per_second(sample.recorded) == 4.0


def test_what_was_seen_before_does_not_count_again(fake: Fake) -> None:
    old = enter("100.100000", "hvc") + leave("100.200000")
    fake.state(old, entries=2)
    fake.look()
    fake.state(old + enter("101.500000", "smc") + leave("101.600000"), entries=4)
    sample = fake.look()
    assert sample.shares == pytest.approx({"smc": 0.1})
    assert (sample.recorded, sample.counts) == (2, {"hyp_enter": 1, "hyp_exit": 1})


def test_a_stay_goes_on_from_one_look_to_the_next(fake: Fake) -> None:
    first = enter("100.900000", "hvc")
    fake.state(first, entries=1)
    assert fake.look().shares == pytest.approx({"hvc": 0.1})
    assert fake.look().shares == pytest.approx({"hvc": 1.0})
    fake.state(first + leave("102.250000"), entries=2)
    assert fake.look().shares == pytest.approx({"hvc": 0.25})
    assert fake.look().shares == {}


def test_only_the_time_that_is_still_there_is_seen(fake: Fake) -> None:
    fake.state(enter("100.800000", "hvc") + leave("100.900000"), entries=2, overrun=50)
    sample = fake.look()
    assert sample.coverage == pytest.approx(0.2)
    assert sample.shares == pytest.approx({"hvc": 0.5})
    assert (sample.recorded, sample.lost) == (52, 50)
    assert sample.rate("hyp_exit") == pytest.approx(5.0)


def test_a_stay_whose_end_was_overwritten_does_not_go_on(fake: Fake) -> None:
    fake.state(enter("100.900000", "hvc"), entries=1)
    fake.look()
    fake.state("[000]\t  101.500000: host_smc id=1\n", entries=1, overrun=9)
    sample = fake.look()
    assert (sample.coverage, sample.shares) == (0.5, {})


def test_what_others_have_consumed_is_not_seen(fake: Fake) -> None:
    fake.state(enter("100.100000", "hvc"), entries=1)
    fake.look()
    fake.state("", read=7)
    sample = fake.look()
    assert (sample.covered_ns, sample.shares, sample.consumed) == (0, {}, 7)


def test_much_is_looked_at_from_its_end(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [enter(f"100.{i:06}", "hvc") + leave(f"100.{i:06}") for i in range(0, 500_000, 1000)]
    monkeypatch.setattr(sampling, "_TAIL", sum(map(len, lines[-250:])) + 10)
    fake.state("".join(lines), entries=1000)
    sample = fake.look()
    assert sample.coverage == pytest.approx(0.75)
    assert sample.counts["hyp_enter"] == 250


def test_a_stay_that_nobody_would_tell_the_end_of_does_not_last(fake: Fake) -> None:
    fake.set("tracing_on", "0\n")
    fake.state(enter("100.500000", "hvc"), entries=1)
    assert sum(fake.look().shares.values()) == 0
    fake.set("tracing_on", "1\n")
    fake.set("set_event", "hypervisor:hyp_enter\n")
    fake.state(enter("101.500000", "hvc"), entries=1)
    assert sum(fake.look().shares.values()) == 0


def test_counters_that_begin_anew(fake: Fake) -> None:
    fake.state("", entries=0, overrun=100)
    fake.look()
    fake.state(leave("101.500000"), entries=1)
    assert (fake.look().recorded, fake.look().recorded) == (1, 0)


def test_lines_for_scripts(fake: Fake) -> None:
    fake.state(enter("100.100000", "hvc") + leave("100.200000"), entries=2, size=1024)
    assert list(batch_lines(fake.sample())) == [
        "101.000 tracing=on enabled=2 buffer_size_kb=4 consumed/s=0",
        "101.000 cpu=0 hyp=10.0% events/s=2 lost/s=0 fill=25.0% seen=100.0% hvc=10.0%",
        "101.000 event=hyp_enter events/s=1",
        "101.000 event=hyp_exit events/s=1",
    ]


# --- the screen ----------------------------------------------------------------------------------


async def _press(fake: Fake, *keys: str) -> str:
    """The screen after `keys`, as SVG without entities."""
    top_screen = pytest.importorskip("hyptrace.top_screen")
    app = top_screen.TopApp(fake.sampler, None, 3600.0)
    async with app.run_test(size=(200, 30)) as pilot:
        for key in keys:
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()
        svg: str = app.export_screenshot()
    return svg.replace("&#160;", " ")


def press(fake: Fake, *keys: str) -> str:
    return asyncio.run(_press(fake, *keys))


def enable_of(fake: Fake, event: str) -> str:
    return (fake.path / f"events/hypervisor/{event}/enable").read_text()


def test_the_screen_shows_cpus_and_events(fake: Fake) -> None:
    fake.now += SECOND
    fake.state(enter("100.100000", "hvc") + leave("100.600000"), entries=2)
    screen = press(fake)
    assert "consumes nothing" in screen
    assert "██████████" in screen
    assert "hvc 50.0" in screen
    assert "hypervisor:host_smc" in screen


def test_keys_switch(fake: Fake) -> None:
    press(fake, "t")
    assert (fake.path / "tracing_on").read_text() == "0"
    press(fake, "down", "space")
    assert [enable_of(fake, name) for name in ("host_smc", *HYP_EVENTS)] == ["-", "0", "-"]
    press(fake, "space")
    assert enable_of(fake, "host_smc") == "1"


def test_a_mount_that_dies_ends_the_screen(fake: Fake) -> None:
    top_screen = pytest.importorskip("hyptrace.top_screen")
    app = top_screen.TopApp(fake.sampler, None, 3600.0)
    (fake.path / "tracing_on").unlink()

    async def run() -> object:
        return await app.run_async(headless=True)

    assert "No such file" in str(asyncio.run(run()))
