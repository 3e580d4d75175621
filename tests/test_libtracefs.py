"""libtracefs on a mount: a program that uses it, as `hyptrace exec` runs it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.decoder import Decoder, RawEvent, RawLost
from tests.mounts import PATIENCE_S, Mount, can_mount, mounted
from tests.tools import on

_SOURCE = Path(__file__).parent / "libtracefs" / "user.c"
_PKG_CONFIG = ["pkg-config", "--cflags", "--libs", "libtracefs"]
_HAS_LIBTRACEFS = not subprocess.run(_PKG_CONFIG, check=False, capture_output=True).returncode

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
    pytest.mark.skipif(not _HAS_LIBTRACEFS, reason="needs libtracefs-dev"),
]

CPUS = 2


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled."""
    binary = tmp_path_factory.mktemp("libtracefs") / "user"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(_PKG_CONFIG, check=True, capture_output=True, text=True)
    libraries = done.stdout.split()
    subprocess.run(["cc", *flags, str(_SOURCE), "-o", str(binary), *libraries], check=True)
    return binary


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    options = ("workload=idle", f"cpus={CPUS}")
    with mounted(tmp_path_factory.mktemp("mount"), *options) as mount:
        yield mount


class User:
    """Runs the program."""

    def __init__(self, program: Path, mount: Mount) -> None:
        self._program = program
        self.mount = mount

    def raw(self, *words: str) -> tuple[bytes, str]:
        """What it writes to stdout, and to stderr."""
        command = on(self.mount.path, "taskset", "-c", "0", str(self._program), *words)
        done = subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.decode()

    def __call__(self, *words: str) -> dict[str, str]:
        """Its lines, `name: value`."""
        lines = self.raw(*words)[0].decode().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    def decoded(self, pages: bytes) -> list[RawEvent | RawLost]:
        formats = self.mount.top.glob("events/hypervisor/*/format")
        return list(Decoder(each.read_text(encoding="ascii") for each in formats).pages(pages))


@pytest.fixture
def user(program: Path, mount: Mount) -> User:
    for name, text in (
        ("tracing_on", "0"), ("events/enable", "0"), ("trace", ""), ("buffer_size_kb", "7"),
    ):  # fmt: skip
        mount.write(name, text)
    return User(program, mount)


EACH = pytest.mark.parametrize("instance", ["top", "hypervisor"])


@EACH
def test_it_finds_what_there_is(user: User, instance: str) -> None:
    found = user("names", instance)
    assert found["systems"] == "hypervisor"
    assert set(found["events"].split()) > {"hyp_enter", "hyp_exit", "selftest"}
    assert found["tracers"] == ""  # nop is none, for libtracefs
    assert found["instances"] == "hypervisor"
    assert found["clock"] == "mono"
    assert found["is on"] == "0"
    assert found["size"] == "7"
    assert found["exists"] == "1 0"


@EACH
def test_what_cannot_be_is_refused(user: User, instance: str) -> None:
    refused = user("refusals", instance)
    assert refused["create"] == "0 Operation not permitted"
    for name in ("enable", "tracer", "clock", "destroy"):
        assert refused[name] == "-1"


@EACH
def test_switches(user: User, instance: str) -> None:
    assert user("switch", instance) == {
        "all": "1", "system": "2", "one": "0", "none": "0", "size": "64",
    }  # fmt: skip


def are_consecutive(numbers: list[int]) -> bool:
    """Whether they follow each other."""
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


_ITERATED = re.compile(r"selftest: cpu=0 time=(\d+) id=(\d+)")


@EACH
def test_iterate_raw_events(user: User, instance: str) -> None:
    lines = user.raw("iterate", instance, "100")[0].decode().splitlines()
    matches = [_ITERATED.fullmatch(line) for line in lines]
    assert all(matches)
    times, numbers = zip(*((int(m[1]), int(m[2])) for m in matches if m), strict=True)
    assert len(numbers) == 100
    assert are_consecutive(list(numbers))
    assert list(times) == sorted(times)


def test_iterate_tells_losses(user: User) -> None:
    lines = user.raw("iterate", "top", "2000")[0].decode().splitlines()
    assert lines[0].startswith("missed: ")
    assert len(lines) < 2000


@EACH
@pytest.mark.parametrize("how", ["read", "stop", "write"])
def test_pages(user: User, instance: str, how: str) -> None:
    """By read, by what is left when a reader is stopped, and by splice."""
    pages, _ = user.raw(how, instance, "500")
    events = [event for event in user.decoded(pages) if isinstance(event, RawEvent)]
    assert are_consecutive([event.fields["id"] for event in events])
    assert 0 < len(events) < 500  # of 7 KiB


def test_pages_are_spliced(user: User) -> None:
    pages, said = user.raw("write", "top", "300")
    assert said == f"spliced: {len(pages)}\n"
    assert pages


@EACH
@pytest.mark.xfail(
    reason="splice from trace_pipe is EINVAL, and libtracefs knows no other way", strict=True
)
def test_trace_pipe_stream(user: User, instance: str) -> None:
    text, _ = user.raw("stream", instance, "50")
    assert text.count(b": selftest id=") == 50
