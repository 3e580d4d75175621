"""scripts/hyp-trace-test: finds nothing wrong with a mount, and finds what is broken on purpose."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mounts import PATIENCE_S, Mount, can_mount, mounted, until

SCRIPT = Path(__file__).parents[1] / "scripts" / "hyp-trace-test"

_mounting = pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")


class Run(NamedTuple):
    """What a run of the script gave."""

    status: int
    lines: list[str]

    @property
    def failures(self) -> list[str]:
        """What does not hold, without number and directory."""
        prefix = re.compile(r"not ok \d+ - \S+: ")
        return [prefix.sub("", line) for line in self.lines if prefix.match(line)]


def run(*arguments: str | Path, patience_s: int = PATIENCE_S) -> Run:
    done = subprocess.run(
        [SCRIPT, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HYP_TRACE_TEST_PATIENCE_S": str(patience_s)},
    )
    return Run(done.returncode, done.stdout.splitlines())


# --- a mount as it is ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(tmp_path_factory.mktemp("hyp-trace-test"), "cpus=2") as mount:
        yield mount


def _tests_of(trigger: str) -> list[str]:
    table = subprocess.run([SCRIPT, "-l"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in table.splitlines() if line.split()[1] == trigger]


_SUITES = [
    *(("hypervisor", test) for test in _tests_of("selftest_event")),
    *(
        (f"remotes/{name}", test)
        for name in ("hypervisor", "test")
        for test in _tests_of("write_event")
    ),
]


@pytest.mark.mount
@_mounting
@pytest.mark.parametrize(("directory", "test"), _SUITES)
def test_nothing_is_wrong_with_a_mount(mount: Mount, directory: str, test: str) -> None:
    done = run("-t", test, mount.path / directory)
    assert done.status == 0, "\n".join(done.lines)
    assert done.lines[0] == "TAP version 13"
    assert done.lines[-1] == f"1..{len(done.lines) - 2}"
    assert all(line.startswith("ok ") for line in done.lines[1:-1])


@pytest.mark.mount
@_mounting
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_directory_is_as_it_was(
    mount: Mount, tmp_path: Path, number: signal.Signals
) -> None:
    mount.write("buffer_size_kb", "33")
    mount.write("events/hypervisor/hyp_exit/enable", "1")
    script = subprocess.Popen(
        [SCRIPT, "--long", "-t", "test_extended_ts", mount.top],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    until(lambda: mount.read("tracing_on") == "1\n", "the test to trace")
    script.send_signal(number)
    assert script.wait(timeout=PATIENCE_S) == 130
    assert mount.read("buffer_size_kb") == "33 (unloaded)\n"
    assert mount.read("tracing_on") == "0\n"
    assert mount.read("events/hypervisor/hyp_exit/enable") == "1\n"
    assert mount.read("events/hypervisor/selftest/enable") == "0\n"
    assert not list(tmp_path.iterdir())
    mount.write("events/hypervisor/hyp_exit/enable", "0")


# --- mounts that are broken on purpose ------------------------------------------------------------


class Broken(NamedTuple):
    """A server with `patch` makes `test` find that `failure`."""

    name: str
    test: str
    failure: str
    patch: str


# Patches change the text of a trace_pipe by `text(bytes)`; all of it goes through Python.
_TEXT = """
import re
from hyptracefs.remote import Reader
from hyptracefs.streams import _OpenPipe
_OpenPipe.pipe = property(lambda self: 0, lambda self, address: None)
_read = Reader.try_read_text
Reader.try_read_text = lambda self, size: text(bytes(_read(self, size)))
"""

_SHIFT = r"""
def text(data):
    moved = lambda match: b"\t%5d." % (int(match[1]) + SECONDS)
    return re.sub(rb"\t *(\d+)\.(?=\d{6})", moved, data)
"""

_SHOW = """
from hyptracefs import controls
def show(place):
    return f"{place.remote.size_kb} ({'loaded' if state(place.remote) else 'unloaded'})\\n"
controls.show_buffer_size_kb = show
"""

# Patches change what a reading of trace shows by `text(bytes)`.
_SHOWN = """
import re
from hyptracefs import trace_files
_open = trace_files.Trace.open
async def open(self, place, flags, caller):
    file = await _open(self, place, flags, caller)
    read = file.read
    async def changed(size, offset, nonblock):
        data = bytes(await read(size, offset, nonblock))
        return data if offset else text(data)
    file.read = changed
    return file
trace_files.Trace.open = open
"""

_BROKEN = (
    Broken("reset-nothing", "test_reset", "after 5 events and a reset, 5 come",
           "Remote.reset = lambda self, cpu=-1: None"),
    Broken("lost-line-1", "test_reset", "after an overrun and a reset, 5 come",
           _TEXT + "text = lambda data: data and b'CPU:0 [LOST 1 EVENTS]\\n' + data"),
    Broken("loaded-never", "test_unloading", "tracing: loaded",
           _SHOW + "state = lambda remote: False"),
    Broken("unload-never", "test_unloading", "tracing stopped: unloaded",
           "Remote._try_unload = lambda self: None"),
    Broken("loaded-by-tracing", "test_unloading", "a reader, not tracing: loaded",
           _SHOW + "state = lambda remote: remote.tracing_on"),
    Broken("close-leaks", "test_unloading", "the reader was killed: unloaded",
           "from hyptracefs.remote import Reader; Reader.close = lambda self: None"),
    Broken("unloaded-by-reset", "test_unloading", "tracing, an event, a reset: loaded", _SHOW + """
remotes = set()
reset = Remote.reset
Remote.reset = lambda self, cpu=-1: self.loaded and remotes.add(self) or reset(self, cpu)
state = lambda remote: remote.loaded and remote not in remotes"""),
    Broken("kept-after-reset", "test_unloading", "tracing stopped after the reset: unloaded",
           _SHOW + """
remotes = set()
reset = Remote.reset
Remote.reset = lambda self, cpu=-1: self.loaded and remotes.add(self) or reset(self, cpu)
state = lambda remote: remote.loaded or remote in remotes"""),
    Broken("no-large-load", "test_big_bpacking", "tracing starts with 341 KiB", """
load = Remote._load
def _load(self):
    if self.size_kb == 341:
        raise OSError(12, "too large")
    return load(self)
Remote._load = _load"""),
    Broken("no-large-size", "test_big_bpacking", "and is loaded",
           _SHOW + "state = lambda remote: remote.size_kb < 341 and remote.loaded"),
    Broken("no-large-stop", "test_big_bpacking", "and stops", """
stop = Remote.stop_tracing
async def stop_tracing(self):
    if self.size_kb == 341:
        raise OSError(5, "too large")
    await stop(self)
Remote.stop_tracing = stop_tracing"""),
    Broken("too-early", "test_ts", "of 1000 events all come, with true times",
           _TEXT + _SHIFT.replace("SECONDS", "-1000")),
    Broken("too-late", "test_extended_ts", "of 12 events with pauses all come, with true times",
           _TEXT + _SHIFT.replace("SECONDS", "1000")),
    Broken("backwards", "test_reset", "after 5 events and a reset, 5 come",
           _TEXT + "text = lambda data: b''.join(reversed(data.splitlines(keepends=True)))"),
    Broken("large-refused", "buffer_size", "4096 KiB are accepted", """
async def set_size(self, size_kb):
    if size_kb > 1000:
        raise OSError(22, "too large")
Remote.set_size = set_size"""),
    Broken("size-ignored", "buffer_size", "tracing: loaded, of that size", """
async def set_size(self, size_kb):
    pass
Remote.set_size = set_size"""),
    Broken("size-stays", "buffer_size", "7 KiB are accepted again", """
async def set_size(self, size_kb):
    if self.size_kb == 4096:
        raise OSError(16, "busy")
    self.size_kb = size_kb
Remote.set_size = set_size"""),
    Broken("size-sticks", "buffer_size", "and shown", """
async def set_size(self, size_kb):
    self.size_kb = max(size_kb, self.size_kb)
Remote.set_size = set_size"""),
    Broken("size-loaded", "buffer_size", "not tracing: unloaded",
           _SHOW + "state = lambda remote: True"),
    Broken("loaded-never-2", "unloading", "tracing: loaded",
           _SHOW + "state = lambda remote: False"),
    Broken("unload-never-2", "unloading", "not tracing: unloaded",
           "Remote._try_unload = lambda self: None"),
    Broken("loaded-by-tracing-2", "unloading", "an idle reader: loaded",
           _SHOW + "state = lambda remote: remote.tracing_on"),
    Broken("close-leaks-2", "unloading", "the reader was killed: unloaded",
           "from hyptracefs.remote import Reader; Reader.close = lambda self: None"),
    Broken("unread-forgotten", "unloading", "not tracing, an unread event: loaded", """
def stay(self):
    if self._transition_lock.locked() or self._readers or self.tracing_on:
        yield "in use"
Remote._reasons_to_stay = stay"""),
    Broken("reset-as-v1", "unloading", "reset: unloaded", """
def reset(self, cpu=-1):
    for each in self._cpus(cpu):
        self._buffer and (self._hypercalls.reset(each), self._buffer.reset(each))
Remote.reset = reset"""),
    Broken("id-1", "reset", "an event comes", """
write = Remote.write_event
Remote.write_event = lambda self, cpu, value: write(self, cpu, 1)"""),
    Broken("reset-nothing-2", "reset", "an event, reset: nothing comes",
           "Remote.reset = lambda self, cpu=-1: None"),
    Broken("lost-line-2", "reset",
           "10000 events, reset, an event: that event comes, and nothing else",
           _TEXT + "text = lambda data: data and b'CPU:0 [LOST 1 EVENTS]\\n' + data"),
    Broken("reset-no-cpu", "reset", "CPU 0 was reset: nothing comes from it",
           "reset = Remote.reset\nRemote.reset = lambda self, cpu=-1: cpu < 0 and reset(self)"),
    Broken("reset-all-cpus", "reset", "CPU 0 was reset: CPU 1 has its event",
           "reset = Remote.reset\nRemote.reset = lambda self, cpu=-1: reset(self)"),
    Broken("reset-kills-cpu", "reset", "CPU 0 was reset: an event comes from it", """
write, reset, dead = Remote.write_event, Remote.reset, set()
Remote.reset = lambda self, cpu=-1: (reset(self, cpu), dead.add(cpu))[0]
Remote.write_event = lambda self, cpu, value: None if cpu in dead else write(self, cpu, value)"""),
    Broken("an-event-missing", "trace_pipe", "1024 KiB: of 1632 events all come",
           _TEXT + "text = lambda data: re.sub(rb'.* id=700\\n', b'', data)"),
    Broken("same-time", "trace_pipe", "1024 KiB: of 1632 events all come",
           _TEXT + "text = lambda data: re.sub(rb'\\t *\\d+\\.\\d{6}', b'\\t    1.000000', data)"),
    Broken("large-stays", "trace_pipe", "all were read: unloaded", """
unload = Remote._try_unload
Remote._try_unload = lambda self: None if self.size_kb == 1024 else unload(self)"""),
    Broken("losses-hidden", "trace_pipe",
           "7 KiB: of 816 events it says how many are lost; the rest comes",
           _TEXT + "text = lambda data: re.sub(rb'CPU:.*\\n', b'', data)"),
    Broken("losses-miscounted", "trace_pipe",
           "7 KiB: of 816 events it says how many are lost; the rest comes",
           _TEXT + "text = lambda data: re.sub(rb'LOST \\d+', b'LOST 2', data)"),
    Broken("one-cpu", "trace_pipe", "CPU 1 gives its event",
           "from hyptracefs import event_files\nevent_files.cpu_of = lambda process: 0"),
    Broken("trace-misses-3", "trace", "8 events are shown",
           _SHOWN + "text = lambda data: re.sub(rb'.* id=3\\n', b'', data)"),
    Broken("trace-once", "trace", "and shown again", _SHOWN + """
seen = set()
text = lambda data: b"" if data in seen else (seen.add(data), data)[1]"""),
    Broken("trace-stale", "trace", "trace_pipe was read: trace is empty", _SHOWN + """
last = [b""]
text = lambda data: (last.append(data or last[-1]), last[-1])[1]"""),
    Broken("trace-misses-20", "trace", "events 16 to 32 are shown",
           _SHOWN + "text = lambda data: re.sub(rb'.* id=20\\n', b'', data)"),
    Broken("trace-kept", "trace", "trace was written: it is empty",
           "Remote.reset = lambda self, cpu=-1: None"),
    Broken("trace-misses-513", "trace", "of 816 events the last are shown",
           _SHOWN + "text = lambda data: re.sub(rb'.* id=513\\n', b'', data)"),
    Broken("trace-of-one-cpu", "trace", "CPU 1 shows its event",
           "from hyptracefs import event_files\nevent_files.cpu_of = lambda process: 0"),
)  # fmt: skip

# Enough to see that the script can fail; HYPOTHESIS_PROFILE=long tries them all.
_QUICK = {"too-early", "close-leaks-2", "reset-all-cpus", "losses-hidden", "an-event-missing"}
_TRIED = [
    broken
    for broken in _BROKEN
    if broken.name in _QUICK or os.environ.get("HYPOTHESIS_PROFILE") == "long"
]


@pytest.mark.mount
@_mounting
@pytest.mark.parametrize("broken", _TRIED, ids=lambda broken: broken.name)
def test_what_is_broken_is_found(tmp_path: Path, broken: Broken) -> None:
    start = "from hyptracefs.remote import Remote"
    end = "import sys; from hyptracefs.cli import main; sys.exit(main())"
    program = ("-c", f"{start}\n{broken.patch}\n{end}")
    directory = "hypervisor" if broken.test.startswith("test_") else "remotes/test"
    with mounted(tmp_path, "cpus=2,workload=idle", program=program) as mount:
        done = run("-t", broken.test, mount.path / directory, patience_s=2)
    assert done.status == 1
    assert f"{broken.test}: {broken.failure}" in done.failures, "\n".join(done.lines)


# --- without a mount -----------------------------------------------------------------------------


def test_what_is_no_tracing_directory_fails(tmp_path: Path) -> None:
    assert run(tmp_path).failures == ["directory: is a tracing directory that we may use"]
    assert run(tmp_path / "nothing").failures == ["directory: can be entered"]
    assert run(tmp_path).status == 1


def test_a_directory_without_a_test_event_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "per_cpu").mkdir()
    for name in ("tracing_on", "buffer_size_kb"):
        (tmp_path / name).touch()
    done = run(tmp_path)
    assert done.status == 0
    assert "# SKIP neither selftest_event nor write_event" in done.lines[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name the tracing directory"),
        (["--no-such"], "there is no option --no-such"),
        (["-t", "nothing", "."], "there is no test nothing"),
        (["-t"], "-t needs the name of a test"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], says: str) -> None:
    done = subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert says in done.stderr
