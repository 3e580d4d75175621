"""`hyptrace report`: what it counts, by brute force; and its page."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hyptrace import html_out, text_input
from tests.captures import TO_GUEST, Made, hyptrace, pages, visits, write_directory
from tests.decoder import REASONS

_FIRST = visits(400)
_SECOND = visits(300, start=5_000_100_000)
_SECOND[60] = _SECOND[60]._replace(lost=7)
_CPUS = [_FIRST, _SECOND]


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "made <x>", [pages(made) for made in _CPUS])


def durations(cpu: int) -> list[tuple[str, int]]:
    """Reason and ns of each stay in the hypervisor."""
    found, since = [], None
    for made in _CPUS[cpu]:
        if made.lost:
            since = None
        if made.name == "hyp_enter":
            since = made
        elif made.name == "hyp_exit":
            if since:
                found.append((REASONS[since.fields["reason"]], made.time - since.time))
            since = None
    return found


def _all_durations() -> dict[str, list[int]]:
    by_reason: dict[str, list[int]] = {}
    for reason, ns in (*durations(0), *durations(1)):
        by_reason.setdefault(reason, []).append(ns)
    return {reason: sorted(each) for reason, each in by_reason.items()}


def _times() -> list[int]:
    return [made.time for each in _CPUS for made in each]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of the tables, by the first word of their heads."""
    found: dict[str, list[list[str]]] = {}
    for block in text.split("\n\n"):
        head, *rows = (line.split() for line in block.splitlines())
        found[head[0]] = rows
    return found


def near(one: float, other: float) -> bool:
    return abs(one - other) <= 0.01 * other + 0.001


def test_statistics(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert hyptrace("report", capture, "--stats") == 0
    found = tables(capfd.readouterr().out)
    names = Counter(made.name for each in _CPUS for made in each)
    assert {name: int(nr) for name, nr in found["event"]} == names
    by_reason = _all_durations()
    assert {row[0] for row in found["reason"]} == set(by_reason)
    for reason, count, *times in found["reason"]:
        each = by_reason[reason]
        total, mean, p50, p99, longest = (float(time) * 1000 for time in times)
        assert (int(count), round(total), round(longest)) == (len(each), sum(each), each[-1])
        assert near(mean, sum(each) / len(each))
        assert near(p50, each[-(-len(each) * 50 // 100) - 1])
        assert near(p99, each[-(-len(each) * 99 // 100) - 1])
    span = max(_times()) - min(_times())
    for cpu, row in enumerate(found["cpu"]):
        busy = sum(ns for _, ns in durations(cpu))
        assert row[:3] == [str(cpu), str(len(_CPUS[cpu])), "7" if cpu else "0"]
        assert round(float(row[3]) * 1000) == busy
        assert float(row[4]) == pytest.approx(100 * busy / span, abs=0.001)


def page_of(capture: Path) -> tuple[str, dict[str, Any]]:
    out = capture.parent / "page.html"
    assert hyptrace("report", capture, "--html", out, "--force") == 0
    page = out.read_text(encoding="utf-8")
    match = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert match
    return page, json.loads(match[1])


def test_the_page_needs_nothing_else(capture: Path) -> None:
    page, _ = page_of(capture)
    assert not re.search(r"(?:src|href)=|@import|url\(", page)
    assert "made &lt;x&gt;" in page
    assert "prefers-color-scheme: dark" in page


def test_what_a_capture_says_is_no_part_of_the_page(capture: Path) -> None:
    form = capture / "events" / "hypervisor" / "hyp_enter" / "format"
    form.write_text(form.read_text().replace('"smc"', '"</script><b>"'))
    page, data = page_of(capture)
    assert "</script><b>" not in page
    assert "</script><b>" in data["kinds"]


def test_the_page_has_what_the_statistics_have(capture: Path) -> None:
    _, data = page_of(capture)
    by_reason = _all_durations()
    got = {each["name"]: (each["count"], each["total"], each["max"]) for each in data["reasons"]}
    assert got == {name: (len(each), sum(each), each[-1]) for name, each in by_reason.items()}
    for each in data["reasons"]:
        assert sum(nr for _, nr in each["histogram"]) == each["count"]
        for start, nr in each["histogram"]:
            assert nr == sum(start <= ns < 2 * start for ns in by_reason[each["name"]])
    assert data["stays"] is not None


def _shares(data: dict[str, Any], cpu: int, kind: str) -> list[int]:
    text = data["bins"]["shares"].get(f"{cpu}:{data['kinds'].index(kind)}", "")
    return array("H", base64.b64decode(text)).tolist()


def test_the_bins_of_the_page_hold_all_time(capture: Path) -> None:
    _, data = page_of(capture)
    for cpu in range(2):
        for reason in REASONS[:6]:
            ns = sum(_shares(data, cpu, reason)) / 65535 * data["bins"]["width"]
            expected = sum(ns for name, ns in durations(cpu) if name == reason)
            # Each share is rounded down.
            assert 0 <= expected - ns <= data["bins"]["width"] / 65535 * data["bins"]["nr"]


def test_a_page_of_many_events_is_small(tmp_path: Path) -> None:
    made = visits(60_000)
    capture = write_directory(tmp_path / "large", [pages(made)])
    page, data = page_of(capture)
    assert data["stays"] is None
    assert len(page) < 8_000_000
    assert data["bins"]["nr"] <= 4096
    for bins in (data["bins"], data["fine"]):
        assert bins["nr"] * bins["width"] >= made[-1].time - made[0].time
    assert data["fine"]["width"] * 64 <= data["bins"]["width"]


def _numbers(code: str, text: str) -> list[int]:
    return array(code, base64.b64decode(text)).tolist()


def test_the_many_bins_say_what_most_of_each_was(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_out, "_MAX_STAYS", 0)
    _, data = page_of(capture)
    fine, origin = data["fine"], data["first"]
    for cpu in range(2):
        spent = _spent(_CPUS[cpu], origin, fine["width"])
        kinds = _numbers("B", fine["kinds"][str(cpu)])
        shares = _numbers("H", fine["shares"][str(cpu)])
        assert len(kinds) == len(shares) == fine["nr"]
        assert {bin_ for bin_, share in enumerate(shares) if share} == set(spent)
        for bin_, by_kind in spent.items():
            share = shares[bin_] * fine["width"] / 65535
            assert share == pytest.approx(sum(by_kind.values()), abs=fine["width"] / 1000)
            # Bins have become one: of two that were as full, either one's.
            most = by_kind[data["kinds"][kinds[bin_]]]
            assert most >= max(by_kind.values()) / 4


def _spent(made: Sequence[Made], origin: int, width: int) -> dict[int, dict[str, int]]:
    """By bin and kind, ns; by brute force."""
    found: dict[int, dict[str, int]] = {}
    since: Made | None = None
    for each in made:
        if each.lost:
            since = None
        if each.name not in {"hyp_enter", "hyp_exit"}:
            continue
        kind = _kind(since, each)
        if since and kind:
            for bin_ in range((since.time - origin) // width, (each.time - origin) // width + 1):
                start, end = origin + bin_ * width, origin + (bin_ + 1) * width
                ns = min(end, each.time) - max(start, since.time)
                if ns > 0:
                    by_kind = found.setdefault(bin_, {})
                    by_kind[kind] = by_kind.get(kind, 0) + ns
        since = each
    return found


def _kind(since: Made | None, each: Made) -> str | None:
    if since is None or since.name == each.name:
        return None
    if since.name == "hyp_enter":
        return REASONS[since.fields["reason"]]
    return "guest" if since.fields["reason"] == TO_GUEST else None


def test_reports_of_no_events(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capture = write_directory(tmp_path / "none", [b"", b""])
    assert hyptrace("report", capture) == 0
    assert capfd.readouterr().out == ""
    assert hyptrace("report", capture, "--stats") == 0
    assert "0 events in 0.000000 s" in capfd.readouterr().out
    page_of(capture)


def test_a_text_is_reported(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = capture.parent / "text"
    assert hyptrace("convert", capture, text, "--to", "text") == 0
    assert hyptrace("report", text, "--stats") == 0
    found = tables(capfd.readouterr().out)
    assert [row[1] for row in found["cpu"]] == [str(len(each)) for each in _CPUS]
    _, data = page_of(text)
    assert [each["cpu"] for each in data["cpus"]] == [0, 1]


def test_text_that_is_none_of_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.write_text("# tracer: nop\n[000]\t    1.000001: selftest id=5\n[000] what?\n[000]\t  ")
    assert hyptrace("report", text) == 0
    out, err = capfd.readouterr()
    assert out == "[000]\t    1.000001: selftest id=5\n"
    assert "2 lines are no events" in err


def test_lines_of_a_text_on_the_borders_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that is too long is one that is no event, and the next one is whole again."""
    event = "[000]\t    1.000001: selftest id=5"
    lines = [f"[{i % 3:03}]\t    1.{i:06}: selftest id={i}\n" for i in range(500)]
    lines[:0] = [event * 22 + "\n"]  # that it begins and ends like one makes it none
    lines[300:300] = ["CPU:2 [LOST EVENTS]\n", "CPU:2 [LOST 3 EVENTS]\n"]
    text = tmp_path / "text"
    text.write_text("".join(lines))
    monkeypatch.setattr(text_input, "_BLOCK", len(event))
    monkeypatch.setattr(text_input, "_LONGEST", 200)
    assert hyptrace("report", text) == 0
    out, err = capfd.readouterr()
    assert [line for line in out.splitlines(keepends=True) if line.startswith("[")] == [
        line for line in lines[1:] if "selftest" in line
    ]
    assert "1 lines are no events" in err
    assert hyptrace("report", text, "--stats") == 0
    assert [row[2] for row in tables(capfd.readouterr().out)["cpu"]] == ["0", "0", "3+"]


def test_a_bar_on_a_terminal_only(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, for the test; its end is the whole of the capture."""
    code = (
        "import hyptrace.progress as p; p.AFTER_S = 0; from hyptrace.cli import main;"
        f"raise SystemExit(main(['report', {str(capture)!r}, '--stats']))"
    )
    monkeypatch.setenv("TERM", "xterm")
    terminal, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=slave, check=True
    )
    os.close(slave)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert b"100%" in shown
    assert done.returncode == 0
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert quiet.stderr == b""


def test_losses_that_no_event_follows_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = pages([Made(1000, "selftest", {"id": 1})])
    empty = bytearray(pages([Made(2000, "selftest", {"id": 2}, lost=9)]))
    empty[8:24] = (3 << 30).to_bytes(8, "little") + (9).to_bytes(8, "little")
    capture = write_directory(tmp_path / "made", [one + bytes(empty)])
    assert hyptrace("report", capture) == 0
    assert capfd.readouterr().out == "[000]\t    0.000001: selftest id=1\nCPU:0 [LOST 9 EVENTS]\n"


def test_a_page_that_makes_no_sense_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(pages([Made(1000 + i, "selftest", {"id": i}) for i in range(10)]))
    data[16 + 3 * 24 + 4] = 1  # the length of the fourth one
    capture = write_directory(tmp_path / "made", [bytes(data) + pages(visits(1))])
    assert hyptrace("report", capture) == 0
    out, err = capfd.readouterr()
    assert out.count("selftest") == 3
    assert out.count("hyp_exit") == 1
    assert "CPU 0: 1 pages make no sense" in err
