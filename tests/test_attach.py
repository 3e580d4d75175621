"""A hypervisor in a process of its own: attached to, outlived, killed, replaced."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor_model.cli import main
from hyptracefs import sources
from hyptracefs.conduit import SocketConduit
from hyptracefs.event_table import MAX_MESSAGE
from hyptracefs.hypercalls import Hypercalls
from hyptracefs.options import Options, UsageError
from hyptracefs.sources import (
    Attachment,
    SocketSource,
    _StartedModel,
    canonical_source,
    check_choices,
    source_of,
)
from tests.mounts import PATIENCE_S, Model, Mount, can_mount, modelled, mounted, parse, until
from tests.support import raises_errno

needs_mount = [
    pytest.mark.mount,
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
]


def mounting(test: object) -> object:
    for mark in needs_mount:
        test = mark(test)
    return test


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with modelled(tmp_path / "hyp.sock", "--cpus=2") as model:
        yield model


def attach(model: Model) -> Attachment:
    return SocketSource(model.path).attach()


def calls_of(attached: Attachment) -> Hypercalls:
    conduit = attached.conduit
    return Hypercalls(conduit.address, attached.introduction.hello.cpus, conduit.gone)


# --- a model of our own ----------------------------------------------------------------------


def children() -> set[str]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(path.read_text(encoding="ascii").split())


def test_first_model_gets_ready_before_it_is_attached_to() -> None:
    before = children()
    source = source_of("model", Options(cpus=2, workload="idle"))
    [first] = children() - before
    attached = source.attach()
    assert children() - before == {first}
    attached.close()
    assert children() == before
    attached = source.attach()
    assert len(children() - before) == 1
    attached.close()
    assert children() == before


# --- hyp-model -----------------------------------------------------------------------------


def test_the_socket_is_for_its_owner_and_gone_at_the_end(model: Model) -> None:
    status = model.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert model.end() == 0
    assert not model.path.exists()


_NOBODY = 65534
_ATTACH = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
    "s.connect(sys.argv[1]); print(int.from_bytes(s.recv(112)[12:16], 'little', signed=True))"
)


def hello_to(uid: int, path: Path) -> int:
    """The error in what a host of user `uid` is told."""
    python = os.path.realpath(sys.executable)
    done = subprocess.run(
        [python, "-I", "-c", _ATTACH, str(path)],
        user=uid,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return int(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
def test_others_cannot_attach_even_where_the_socket_lets_them_in(open_directory: Path) -> None:
    with modelled(open_directory / "hyp.sock", "--cpus=1") as model:
        model.path.chmod(0o666)
        assert hello_to(_NOBODY, model.path) == -errno.EACCES
        assert hello_to(0, model.path) == 0
        attached = attach(model)
        assert hello_to(_NOBODY, model.path) == -errno.EACCES
        assert hello_to(0, model.path) == -errno.EBUSY
        attached.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
def test_another_user_can_be_allowed(open_directory: Path) -> None:
    with modelled(open_directory / "hyp.sock", "--cpus=1", f"--allow-uid={_NOBODY}") as model:
        assert stat.S_IMODE(model.path.stat().st_mode) == 0o666
        assert hello_to(_NOBODY, model.path) == 0
        assert hello_to(_NOBODY - 1, model.path) == -errno.EACCES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_also_with_a_host(model: Model, number: signal.Signals) -> None:
    attached = attach(model)
    model.process.send_signal(number)
    assert model.process.wait(timeout=PATIENCE_S) == 0
    assert attached.conduit.gone()
    attached.close()


def test_a_socket_that_a_dead_one_left_is_replaced(model: Model) -> None:
    model.kill()
    assert model.path.exists()
    with modelled(model.path, "--cpus=1") as another:
        attach(another).close()


def failed(*arguments: str) -> str:
    command = [sys.executable, "-m", "hypervisor_model", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    return line


def test_two_cannot_listen_at_one_path(model: Model) -> None:
    assert "another hypervisor listens there" in failed(f"--listen={model.path}")
    attach(model).close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine", encoding="ascii")
    assert "not a socket" in failed(f"--listen={path}")
    assert path.read_text(encoding="ascii") == "mine"


def test_a_path_where_nothing_can_be_made_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none" / "hyp.sock"
    assert failed(f"--listen={path}") == f"hyp-model: {path}: No such file or directory"


@pytest.mark.parametrize("cpus", ["0", "1025", "-1", "two", ""])
def test_a_number_of_cpus_that_cannot_be_is_wrong_usage(
    cpus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--listen=/nosuch", f"--cpus={cpus}"])
    assert raised.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"argument --cpus: {cpus!r} is not a number from 1 to 1024")


def test_a_path_that_does_not_fit_is_said(tmp_path: Path) -> None:
    assert "107" in failed(f"--listen={tmp_path / ('x' * 200)}")


# --- attaching -------------------------------------------------------------------------------


def test_it_says_what_it_is(model: Model) -> None:
    attached = attach(model)
    hello = attached.introduction.hello
    assert (hello.name, hello.cpus, hello.page_size) == ("hypervisor", 2, 4096)
    assert {"hyp_enter", "hyp_exit", "selftest"} <= {e.name for e in attached.introduction.events}
    attached.close()


def test_hypercalls_work_and_fail_as_in_process(model: Model) -> None:
    attached = attach(model)
    calls = calls_of(attached)
    calls.unload()
    with pytest.raises(OSError, match="hypervisor: tracing_enable") as caught:
        calls.enable(on=True)
    assert caught.value.errno == errno.EINVAL
    attached.close()


def test_another_host_is_told_that_it_is_busy(model: Model) -> None:
    attached = attach(model)
    with pytest.raises(OSError, match="busy") as caught:
        attach(model)
    assert caught.value.errno == errno.EBUSY
    calls_of(attached).unload()
    attached.close()
    until(lambda: can_attach(model), "the next host to be served")


def can_attach(model: Model) -> bool:
    try:
        attach(model).close()
    except OSError:
        return False
    return True


def test_nobody_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file.*hyp-model --listen"):
        SocketSource(tmp_path / "none").attach()


@pytest.mark.parametrize(
    ("message", "number", "why"),
    [
        (b"", errno.ECONNRESET, "it has hung up before it had introduced itself"),
        (bytes(MAX_MESSAGE + 1), errno.EPROTO, f"a message of more than {MAX_MESSAGE} bytes"),
        (None, errno.ETIMEDOUT, "it says nothing"),
    ],
)
def test_one_that_does_not_introduce_itself_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: bytes | None, number: int, why: str
) -> None:
    if message is None:
        monkeypatch.setattr(sources, "_PATIENCE_S", 0.01)
    path = tmp_path / "hyp.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        answering = threading.Thread(target=_answer_with, args=(listener, message))
        answering.start()
        with pytest.raises(OSError, match=f"^.Errno {number}. hypervisor at {path}: {why}$"):
            SocketSource(path).attach()
        answering.join()


def _answer_with(listener: socket.socket, message: bytes | None) -> None:
    """One host, until it hangs up; None: it is told nothing."""
    connection, _ = listener.accept()
    with connection:
        if message:
            connection.send(message)
        if message != b"":
            connection.recv(1)


def test_a_model_that_does_not_end_when_it_is_hung_up_on_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "_PATIENCE_S", 0.01)
    process = subprocess.Popen(["sleep", "1000"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _StartedModel(ours, process).end()
    assert process.returncode == -signal.SIGKILL
    assert caplog.messages == [f"model: process {process.pid} does not end: killed"]


@pytest.mark.parametrize("name", ["", "unix", "unix:", "tcp:1", "Model"])
def test_unknown_sources_are_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="unix:PATH"):
        canonical_source(name)


@pytest.mark.parametrize("options", [Options(cpus=2), Options(workload="idle")])
def test_what_is_the_model_s_to_choose_is_refused_of_another(options: Options) -> None:
    check_choices("model", options)
    check_choices("unix:/nosuch", Options(poll_ms=1))
    with pytest.raises(UsageError, match=r"unix:/nosuch has its own.*hyp-model --(cpus|workload)"):
        check_choices("unix:/nosuch", options)


def test_a_relative_path_is_made_absolute() -> None:
    assert canonical_source("unix:hyp.sock") == f"unix:{Path.cwd()}/hyp.sock"


# --- a hypervisor that does not keep to the protocol ---------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[SocketConduit, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    conduit = SocketConduit(ours)
    yield conduit, theirs
    conduit.close()
    theirs.close()


@pytest.mark.parametrize(
    "answer",
    [b"x", b"\1\0\0\0\1\0\0\0", b"\2\0\0\0\1\0\0\0" + bytes(16), b"\1\0\0\0\2\0\0\0" + bytes(32),
     b"\1\0\0\0\0\0\0\0" + bytes(16), bytes(60000)],
)  # fmt: skip
def test_an_answer_that_is_none_ends_it(
    pair: tuple[SocketConduit, socket.socket], answer: bytes
) -> None:
    conduit, theirs = pair
    theirs.send(answer)
    calls = Hypercalls(conduit.address, 1, conduit.gone)
    for _ in range(3):
        with pytest.raises(OSError, match="unload") as caught:
            calls.unload()
        assert caught.value.errno == errno.ENODEV
    assert conduit.gone() == os.strerror(errno.EPROTO)


def test_one_that_hangs_up_is_noticed_without_a_call(
    pair: tuple[SocketConduit, socket.socket],
) -> None:
    conduit, theirs = pair
    assert not conduit.gone()
    theirs.close()
    assert conduit.gone()


def _reply(x0: int, x1: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQQ", 1, 1, x0, x1) + body


def _no_cpus(size: int, nr_results: int = 0, nr_cpus: int = 0) -> bytes:
    return struct.pack("<4I6Q", size, nr_results, nr_cpus, 0, *range(6))


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        (_reply(2**64 - 1, 0), errno.EOPNOTSUPP),
        (_reply(2**64 - 1, 0, b"more"), errno.EOPNOTSUPP),
        (_reply(0, 2**64 - errno.EIO), errno.EIO),
        (_reply(0, 2**64 - errno.EIO, _no_cpus(64)), errno.EIO),
        (_reply(0, 1, _no_cpus(64)), errno.EPROTO),
        (_reply(0, 0), errno.EPROTO),
        (_reply(0, 0, _no_cpus(64)[:-1]), errno.EPROTO),
        (_reply(0, 0, _no_cpus(63)), errno.EPROTO),
        (_reply(0, 0, _no_cpus(65)), errno.EPROTO),
        (_reply(0, 0, _no_cpus(2**32 - 1)), errno.EPROTO),
        (_reply(0, 0, _no_cpus(64)), errno.EPROTO),  # 0 CPUs of 1
        (_reply(0, 0, _no_cpus(64, nr_cpus=1)), errno.EPROTO),
        (_reply(0, 0, _no_cpus(112, nr_cpus=1) + bytes(48)), 0),
        (_reply(0, 0, _no_cpus(112, 2**32 - 1, 1) + bytes(48)), errno.EPROTO),
    ],
)  # fmt: skip
def test_statistics_that_make_no_sense_fail_and_end_nothing(
    pair: tuple[SocketConduit, socket.socket], reply: bytes, number: int
) -> None:
    conduit, theirs = pair
    theirs.send(reply)
    calls = Hypercalls(conduit.address, 1, conduit.gone)
    if number:
        with raises_errno(number):
            calls.statistics()
    else:
        assert calls.statistics().most_pages_shared == 5
    sent = theirs.recv(1000)
    assert sent == struct.pack("<4I5Q", 1, 1, 0, 0, 8, 0, 0, 0, 0), "no address of ours"
    assert not conduit.gone()


@pytest.mark.parametrize(
    "reply", [b"x", struct.pack("<IIQQ", 2, 1, 0, 0) + _no_cpus(64), _reply(0, 0, bytes(65536))]
)
def test_an_answer_that_is_no_reply_to_statistics_ends_it(
    pair: tuple[SocketConduit, socket.socket], reply: bytes
) -> None:
    conduit, theirs = pair
    theirs.send(reply)
    with raises_errno(errno.ENODEV):
        Hypercalls(conduit.address, 1, conduit.gone).statistics()
    assert conduit.gone() == os.strerror(errno.EPROTO)


def test_a_load_of_many_pages_may_take_longer(pair: tuple[SocketConduit, socket.socket]) -> None:
    conduit, theirs = pair
    late = threading.Timer(2.3, theirs.send, [_reply(0, 0)])
    late.start()
    with tempfile.TemporaryFile() as memory:
        Hypercalls(conduit.address, 1, conduit.gone).load(0, 1 << 20, memory.fileno(), 0)
    late.join()
    assert not conduit.gone()


# --- mounts --------------------------------------------------------------------------------------


@mounting
def test_the_session_of_the_readme_over_a_socket(tmp_path: Path, model: Model) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        mount.trace()
        lines = parse(mount.cat_for(1, "per_cpu/cpu1/trace_pipe").decode())
        assert len(lines) > 1000
    assert model.end() == 0


@mounting
def test_the_hypervisor_outlives_its_hosts(tmp_path: Path, model: Model) -> None:
    for turn in range(5):
        with mounted(tmp_path / str(turn), source=model.source) as mount:
            assert mount.read("events/enable") == "0\n"
            mount.trace()
            with mount.cat("trace_pipe") as reader:
                mount.die()
                reader.kill()
        until(lambda: can_attach(model), "the hypervisor to notice that its host is dead")


@mounting
def test_a_dead_hypervisor_leaves_what_it_has_recorded(tmp_path: Path, model: Model) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        mount.write("buffer_size_kb", "64")
        mount.write("events/hypervisor/selftest/enable", "1")
        mount.write("tracing_on", "1")
        for _ in range(500):
            mount.write("selftest_event", "")
        model.kill()
        lines = parse(mount.cat_for(0.5, "trace_pipe").decode())
        assert [line.text for line in lines if line.event == "selftest"] == [
            f"id={number}" for number in range(1, 501)
        ]
        assert mount.read("tracing_on") == "0\n"
        for file, text in [
            ("tracing_on", "1"), ("selftest_event", ""), ("events/enable", "1"),
        ]:  # fmt: skip
            with pytest.raises(OSError, match="No such device"):
                mount.write(file, text)
        assert "the hypervisor is gone" in mount.log()


@mounting
def test_a_dead_hypervisor_holds_no_buffer_of_which_all_is_read(
    tmp_path: Path, model: Model
) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        mount.write("tracing_on", "1")
        model.kill()
        mount.write("buffer_size_kb", "64")
        assert mount.read("buffer_size_kb") == "64 (unloaded)\n"


@mounting
def test_the_next_hypervisor_is_attached_to(tmp_path: Path, model: Model) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        mount.trace()
        reader = mount.blocked_cat("per_cpu/cpu0/trace_pipe_raw")
        for _ in range(3):
            model.kill()
            with modelled(model.path, "--cpus=2"):
                mount.write("tracing_on", "1")
                assert mount.read("tracing_on") == "1\n"
                # what was enabled is enabled, and what waits goes on waiting
                assert parse(mount.cat_for(0.5, "per_cpu/cpu1/trace_pipe").decode())
        reader.kill()
        reader.wait()


@mounting
def test_one_that_is_not_like_it_is_not_attached_to(tmp_path: Path, model: Model) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        model.kill()
        with modelled(model.path, "--cpus=1"):
            with pytest.raises(OSError, match="No such device"):
                mount.write("tracing_on", "1")
            assert "other CPUs or events" in mount.log()


@mounting
def test_a_stopped_hypervisor_is_given_up(tmp_path: Path, model: Model) -> None:
    with mounted(tmp_path / "m", source=model.source) as mount:
        mount.trace()
        model.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OSError, match="No such device"):
            mount.write("events/enable", "0")
        assert mount.read("tracing_on") == "0\n"
        model.process.send_signal(signal.SIGCONT)
        until(lambda: can_attach(model), "the hypervisor to see that it was hung up on")


@mounting
def test_a_model_of_our_own_ends_with_the_mount(tmp_path: Path) -> None:
    with mounted(tmp_path / "m") as mount:
        child = mount.model()
        mount.die()
        until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), "its end")


def is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")


@mounting
def test_one_that_is_killed_while_somebody_waits_for_its_ring_is_noticed(
    tmp_path: Path, model: Model
) -> None:
    with mounted(tmp_path, source=model.source) as mount:
        mount.write("tracing_on", "1")
        reader = mount.blocked_cat("trace_pipe")
        until(lambda: "tracing_doorbell calls 2" in mount.read("statistics"), "it to be armed")
        model.kill()
        until(lambda: "the hypervisor is gone" in mount.log(), "it to be missed")
        assert mount.read("tracing_on") == "0\n"
        reader.kill()
        reader.wait()


@mounting
def test_a_model_of_our_own_that_was_killed_is_started_anew(tmp_path: Path) -> None:
    with mounted(tmp_path / "m", "cpus=2") as mount:
        mount.trace()
        child = mount.model()
        os.kill(child, signal.SIGKILL)
        until(lambda: mount.read("tracing_on") == "0\n", "the host to notice")
        mount.write("tracing_on", "1")
        assert parse(mount.cat_for(0.5, "per_cpu/cpu1/trace_pipe").decode())
        assert re.search(r"attached to another hypervisor", mount.log())


def ends_at_random(mount: Mount, model: Model, turn: int) -> None:
    """Use everything while one side dies at some moment of it."""
    victim = model.process.pid if turn % 2 else mount.server.pid
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.0{turn % 10}{turn % 7}; kill -9 {victim}"])
    try:
        mount.trace()
        mount.cat_for(0.05, "trace_pipe")
        mount.write("trace", "")
        mount.write("tracing_on", "0")
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED}:
            raise
    killer.wait()


TURNS = int(os.environ.get("HYPTRACEFS_KILLS", "10"))


@mounting
@pytest.mark.parametrize("turn", range(TURNS))
def test_killed_at_any_moment(tmp_path: Path, turn: int) -> None:
    with modelled(tmp_path / "hyp.sock", "--cpus=2") as model:
        mount = Mount(tmp_mountpoint(tmp_path), tmp_path / "log", source=model.source)
        try:
            ends_at_random(mount, model, turn)
            if turn % 2:
                assert mount.read("tracing_on") == "0\n"
                mount.end()
            else:
                until(lambda: can_attach(model), "the hypervisor to serve the next host")
        finally:
            mount.server.kill()
            mount.server.wait()
            if mount.is_mounted():
                subprocess.run(["umount", "-l", str(mount.path)], check=True)


def tmp_mountpoint(tmp_path: Path) -> Path:
    where = tmp_path / "mnt"
    where.mkdir()
    return where
