"""The handlers of FUSE requests, driven with no mount."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from hyptracefs import controls
from hyptracefs.fuse import TraceOperations
from hyptracefs.fuse_hook import PIPE, STREAM, pyfuse3
from hyptracefs.remote import Remote
from hyptracefs.tree import ROOT_INODE, Tree
from tests.support import parse_lines, selftests, start_with, texts, write_ids

pytestmark = pytest.mark.jumping_clock

_CONTEXT = cast("pyfuse3.RequestContext", SimpleNamespace(pid=os.getpid()))
_NO_HANDLE = pyfuse3.FileHandleT(0)


class _Requests:
    """Requests of a kernel that the test plays."""

    def __init__(self) -> None:
        self.nonblock = False
        self.cache = 0
        self.scopes: list[trio.CancelScope] = []  # of the reads that have begun
        self.killables: list[trio.CancelScope] = []  # of the other requests that have

    def writer(self) -> int:
        return os.getpid()

    def nonblocking(self) -> bool:
        return self.nonblock

    def for_page_cache(self) -> int:
        return self.cache

    def interruptible(self) -> AbstractContextManager[trio.CancelScope]:
        self.scopes.append(trio.CancelScope())
        return self.scopes[-1]

    def killable(self) -> AbstractContextManager[trio.CancelScope]:
        self.killables.append(trio.CancelScope())
        return self.killables[-1]


@pytest.fixture
def requests() -> _Requests:
    return _Requests()


@pytest.fixture
def operations(tree: Tree, requests: _Requests) -> TraceOperations:
    return TraceOperations(tree, requests)


def _inode(tree: Tree, path: str) -> pyfuse3.InodeT:
    return pyfuse3.InodeT(tree.find(path).inode if path else ROOT_INODE)


def _name(text: str) -> pyfuse3.FileNameT:
    return pyfuse3.FileNameT(text.encode())


@contextmanager
def _refused(number: int) -> Iterator[None]:
    with pytest.raises(pyfuse3.FUSEError) as raised:
        yield
    assert errno.errorcode[raised.value.errno] == errno.errorcode[number]


async def _open(
    operations: TraceOperations, tree: Tree, path: str, flags: int = os.O_RDWR
) -> pyfuse3.FileInfo:
    inode = _inode(tree, f"hypervisor/{path}")
    return await operations.open(inode, pyfuse3.FlagT(flags), _CONTEXT)


# --- names and attributes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "name", "found"),
    [
        ("", "hypervisor", "hypervisor"),
        ("", ".", ""),
        ("", "..", ""),
        ("hypervisor", ".", "hypervisor"),
        ("hypervisor", "..", ""),
        ("hypervisor", "trace", "hypervisor/trace"),
        ("hypervisor/per_cpu", "..", "hypervisor"),
        ("hypervisor/per_cpu", "cpu1", "hypervisor/per_cpu/cpu1"),
    ],
)
async def test_lookup_finds_names_and_dots(
    operations: TraceOperations, tree: Tree, directory: str, name: str, found: str
) -> None:
    entry = await operations.lookup(_inode(tree, directory), _name(name), _CONTEXT)
    assert entry.st_ino == _inode(tree, found)


@pytest.mark.parametrize("name", ["nosuch", "cpu2", "...", "\udcff", ""])
async def test_lookup_of_another_name_is_enoent(
    operations: TraceOperations, tree: Tree, name: str
) -> None:
    raw = pyfuse3.FileNameT(os.fsencode(name))
    with _refused(errno.ENOENT):
        await operations.lookup(_inode(tree, "hypervisor/per_cpu"), raw, _CONTEXT)


@pytest.mark.parametrize("path", ["", "hypervisor", "hypervisor/trace", "hypervisor/tracing_on"])
async def test_attributes_are_those_of_the_node_and_not_to_be_remembered(
    operations: TraceOperations, tree: Tree, path: str
) -> None:
    node = tree.node(_inode(tree, path))
    entry = await operations.getattr(_inode(tree, path), _CONTEXT)
    assert (entry.st_ino, entry.st_mode, entry.st_nlink) == (node.inode, node.mode, node.nlink)
    assert (entry.st_size, entry.st_blksize) == (await node.size(), 4096)
    assert (entry.st_uid, entry.st_gid) == (os.getuid(), os.getgid())
    assert (entry.attr_timeout, entry.entry_timeout) == (0, 0)


async def test_statfs_tells_the_longest_name(operations: TraceOperations) -> None:
    data = await operations.statfs(_CONTEXT)
    assert (data.f_namemax, data.f_bsize) == (255, 4096)


async def _set(operations: TraceOperations, tree: Tree, *what: str) -> pyfuse3.EntryAttributes:
    names = [name for name in dir(pyfuse3.SetattrFields()) if name.startswith("update_")]
    fields = SimpleNamespace(**{name: name.removeprefix("update_") in what for name in names})
    return await operations.setattr(
        _inode(tree, "hypervisor/trace"),
        pyfuse3.EntryAttributes(),
        cast("pyfuse3.SetattrFields", fields),
        None,
        _CONTEXT,
    )


@pytest.mark.parametrize("what", ["mode", "uid", "gid"])
async def test_modes_and_owners_are_fixed(
    operations: TraceOperations, tree: Tree, what: str
) -> None:
    with _refused(errno.EPERM):
        await _set(operations, tree, what)


@pytest.mark.parametrize("what", ["size", "atime", "mtime", "ctime"])
async def test_truncation_and_times_are_accepted_without_effect(
    operations: TraceOperations, tree: Tree, remote: Remote, what: str
) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, [1])
    entry = await _set(operations, tree, what)
    assert entry.st_ino == _inode(tree, "hypervisor/trace")
    assert remote.statistics().cpus[0].unread == 1


async def test_init_says_that_it_is_ready(tree: Tree, requests: _Requests) -> None:
    said: list[bool] = []
    TraceOperations(tree, requests, lambda: said.append(True)).init()
    assert said == [True]


class _Answer:
    """Of readdir, with room for names of so many bytes: a shorter one may fit where one did not."""

    def __init__(self, room: int, start_id: int) -> None:
        self._room = room
        self.names: list[str] = []
        self.next_id = start_id

    def add(self, name: bytes, entry: pyfuse3.EntryAttributes, next_id: int) -> bool:
        """As pyfuse3.readdir_reply(), whose token is the answer."""
        if len(name) > self._room:
            return False
        self._room -= len(name)
        assert entry.st_ino
        self.names.append(name.decode())
        self.next_id = next_id
        return True


@pytest.mark.parametrize("room", [25, 40, 1000])
async def test_directory_is_listed_in_as_many_answers_as_it_takes(
    operations: TraceOperations, tree: Tree, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(pyfuse3, "readdir_reply", _Answer.add)
    handle = await operations.opendir(_inode(tree, "hypervisor"), _CONTEXT)
    names: list[str] = []
    answer = _Answer(room, 0)
    while not names or answer.names:
        answer = _Answer(room, answer.next_id)
        await operations.readdir(handle, answer.next_id, cast("pyfuse3.ReaddirToken", answer))
        names += answer.names
    children = tree.find("hypervisor").children
    assert names == [".", "..", *children]


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "nonseekable"),
    [
        ("trace_pipe", True),
        ("trace_pipe_raw", True),
        ("per_cpu/cpu0/trace_pipe", True),
        ("trace", False),
        ("tracing_on", False),
        ("events/header_page", False),
    ],
)
async def test_files_open_without_a_cache_and_pipes_without_seeking(
    operations: TraceOperations, tree: Tree, path: str, nonseekable: bool
) -> None:
    info = await _open(operations, tree, path)
    assert (info.direct_io, info.keep_cache, info.nonseekable) == (True, False, nonseekable)


async def test_each_open_file_has_a_handle_of_its_own(
    operations: TraceOperations, tree: Tree
) -> None:
    handles = [(await _open(operations, tree, "tracing_on")).fh for _ in range(3)]
    await operations.release(handles[0])
    handles.append((await _open(operations, tree, "tracing_on")).fh)
    assert len(set(handles)) == 4


async def test_open_of_a_directory_is_eisdir(operations: TraceOperations, tree: Tree) -> None:
    with _refused(errno.EISDIR):
        await _open(operations, tree, "events")


async def test_control_file_is_written_and_read(operations: TraceOperations, tree: Tree) -> None:
    handle = (await _open(operations, tree, "buffer_size_kb")).fh
    assert await operations.write(handle, 0, b"64\n") == 3
    assert bytes(await operations.read(handle, 0, 100)) == b"64 (unloaded)\n"
    assert bytes(await operations.read(handle, 3, 100)) == b"(unloaded)\n"
    await operations.flush(handle)
    await operations.release(handle)


async def test_release_of_a_pipe_unloads_and_its_flush_does_not(
    operations: TraceOperations, tree: Tree, remote: Remote
) -> None:
    handle = (await _open(operations, tree, "trace_pipe")).fh
    await operations.flush(handle)
    assert remote.loaded
    await operations.release(handle)
    assert not remote.loaded


@pytest.mark.parametrize(
    ("path", "data", "number"),
    [
        ("tracing_on", b"abc", errno.EINVAL),
        ("buffer_size_kb", b"99999999999999999999999", errno.ERANGE),
        ("trace_pipe", b"1", errno.EINVAL),
        ("trace_clock", b"1", errno.EINVAL),
    ],
)
async def test_error_of_a_file_is_the_answer(
    operations: TraceOperations, tree: Tree, path: str, data: bytes, number: int
) -> None:
    handle = (await _open(operations, tree, path)).fh
    with _refused(number):
        await operations.write(handle, 0, data)


async def test_error_of_open_is_the_answer_and_leaves_no_handle(
    operations: TraceOperations, tree: Tree, remote: Remote
) -> None:
    await remote.set_size(2**53)  # pages that do not fit 32 bits
    with _refused(errno.E2BIG):
        await _open(operations, tree, "trace_pipe", os.O_RDONLY)
    with _refused(errno.EIO):
        await operations.read(pyfuse3.FileHandleT(1), 0, 1)


async def test_empty_pipe_that_does_not_block_is_eagain(
    operations: TraceOperations, tree: Tree, requests: _Requests
) -> None:
    requests.nonblock = True
    handle = (await _open(operations, tree, "trace_pipe")).fh
    with _refused(errno.EAGAIN):
        await operations.read(handle, 0, 100)


async def test_interrupted_read_is_eintr_and_consumes_nothing(
    operations: TraceOperations, tree: Tree, requests: _Requests, remote: Remote
) -> None:
    await start_with(remote, "selftest")
    handle = (await _open(operations, tree, "trace_pipe")).fh

    async def read() -> None:
        with _refused(errno.EINTR):
            await operations.read(handle, 0, 4096)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        # The event and the interrupt come together: the interrupt must not eat the event.
        write_ids(remote, [1])
        requests.scopes[0].cancel()
    assert remote.statistics().waiting == 0
    write_ids(remote, [2])
    text = bytes(await operations.read(handle, 0, 4096)).decode()
    assert texts(parse_lines(text)) == selftests([1, 2])


async def test_interrupt_of_one_read_leaves_the_others_blocked(
    operations: TraceOperations, tree: Tree, requests: _Requests, remote: Remote
) -> None:
    await start_with(remote, "selftest")
    handles = [(await _open(operations, tree, "trace_pipe")).fh for _ in range(2)]
    answers: list[str] = []

    async def read(handle: pyfuse3.FileHandleT) -> None:
        try:
            answers.append(bytes(await operations.read(handle, 0, 4096)).decode())
        except pyfuse3.FUSEError as error:
            answers.append(errno.errorcode[error.errno])

    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(read, handle)
            await trio.testing.wait_all_tasks_blocked()
        requests.scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == ["EINTR"]
        assert remote.statistics().waiting == 1
        write_ids(remote, [7])
    assert texts(parse_lines(answers[1])) == ["selftest id=7"]


async def test_killed_write_of_tracing_on_leaves_it_off(
    operations: TraceOperations, tree: Tree, requests: _Requests, remote: Remote
) -> None:
    handle = (await _open(operations, tree, "tracing_on")).fh

    async def write() -> None:
        with _refused(errno.EINTR):
            await operations.write(handle, 0, b"1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        requests.killables[-1].cancel()
    assert not remote.tracing_on
    assert not remote.loaded
    assert await operations.write(handle, 0, b"1") == 1
    assert remote.tracing_on


async def test_killed_open_leaves_no_reader(
    operations: TraceOperations, tree: Tree, requests: _Requests, remote: Remote
) -> None:
    async def open_pipe() -> None:
        with _refused(errno.EINTR):
            await _open(operations, tree, "trace_pipe")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remote.start_tracing)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(open_pipe)  # waits for the transition to end
        await trio.testing.wait_all_tasks_blocked()
        requests.killables[-1].cancel()
    statistics = remote.statistics()
    assert (statistics.tracing_on, statistics.readers) == (True, 0)


# --- for the page cache ------------------------------------------------------------------------


@pytest.fixture
def cached(requests: _Requests) -> None:
    """Reads come from the page cache of an inode."""
    requests.cache = 18


@pytest.mark.usefixtures("cached")
async def test_page_of_an_offset_is_always_the_same(
    operations: TraceOperations, tree: Tree, remote: Remote
) -> None:
    await start_with(remote, "selftest", size_kb=256)
    write_ids(remote, range(20 * 170))
    handle = (await _open(operations, tree, "per_cpu/cpu0/trace_pipe_raw")).fh

    async def read(page: int) -> bytes:
        return bytes(await operations.read(handle, page * 4096, 4096))

    pages = [await read(page) for page in range(20)]
    assert len(set(pages)) == 20
    # A sendfile steps back at most over as much as a pipe holds: 16 pages.
    assert [await read(page) for page in range(4, 20)] == pages[4:]
    with _refused(errno.EIO):
        await read(3)
    with _refused(errno.EAGAIN):
        await read(20)


@pytest.mark.usefixtures("cached")
async def test_pages_are_not_read_ahead(
    operations: TraceOperations, tree: Tree, remote: Remote
) -> None:
    await start_with(remote, "selftest", size_kb=256)
    write_ids(remote, range(20 * 170))
    handle = (await _open(operations, tree, "per_cpu/cpu0/trace_pipe_raw")).fh
    with _refused(errno.EAGAIN):
        await operations.read(handle, 0, 2 * 4096)
    assert remote.statistics().cpus[0].read == 0


@pytest.mark.usefixtures("cached")
async def test_control_file_can_be_spliced_and_a_text_pipe_cannot(
    operations: TraceOperations, tree: Tree
) -> None:
    control = (await _open(operations, tree, "buffer_size_kb")).fh
    assert bytes(await operations.read(control, 0, 4096)) == b"7 (unloaded)\n"
    pipe = (await _open(operations, tree, "trace_pipe")).fh
    with _refused(errno.EINVAL):
        await operations.read(pipe, 0, 4096)
    for handle in (control, pipe):
        await operations.release(handle)


async def test_released_file_leaves_nothing_in_the_page_cache(
    operations: TraceOperations, tree: Tree, requests: _Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[int] = []
    monkeypatch.setattr(pyfuse3, "invalidate_inode", dropped.append)
    for inode in (0, 18, 19):
        requests.cache = inode
        handle = (await _open(operations, tree, "buffer_size_kb")).fh
        await operations.read(handle, 0, 4096)
        await operations.release(handle)
    assert dropped == [18, 19]


async def test_each_lookup_of_a_raw_pipe_gives_another_inode_of_the_same_node(
    operations: TraceOperations, tree: Tree
) -> None:
    node = tree.find("hypervisor/trace_pipe_raw")
    inodes = [
        (await operations.lookup(_inode(tree, "hypervisor"), _name(node.name), _CONTEXT)).st_ino
        for _ in range(3)
    ]
    assert len({*inodes, node.inode}) == 4
    for inode in inodes:
        assert (await operations.getattr(inode, _CONTEXT)).st_ino == node.inode
        info = await operations.open(inode, pyfuse3.FlagT(os.O_RDONLY), _CONTEXT)
        assert info.fh & STREAM
        await operations.release(info.fh)


# --- what nobody may do, and bugs --------------------------------------------------------------


_X = _name("x")

_FORBIDDEN: dict[str, tuple[int, Callable[[TraceOperations], Awaitable[object]]]] = {
    "create": (
        errno.EACCES,
        lambda ops: ops.create(
            pyfuse3.ROOT_INODE, _X, pyfuse3.ModeT(0o600), pyfuse3.FlagT(os.O_WRONLY), _CONTEXT
        ),
    ),
    "mknod": (
        errno.EACCES,
        lambda ops: ops.mknod(pyfuse3.ROOT_INODE, _X, pyfuse3.ModeT(0o600), 0, _CONTEXT),
    ),
    "symlink": (errno.EACCES, lambda ops: ops.symlink(pyfuse3.ROOT_INODE, _X, _X, _CONTEXT)),
    "link": (
        errno.EACCES,
        lambda ops: ops.link(pyfuse3.InodeT(3), pyfuse3.ROOT_INODE, _X, _CONTEXT),
    ),
    "mkdir": (
        errno.EPERM,
        lambda ops: ops.mkdir(pyfuse3.ROOT_INODE, _X, pyfuse3.ModeT(0o700), _CONTEXT),
    ),
    "unlink": (errno.EPERM, lambda ops: ops.unlink(pyfuse3.ROOT_INODE, _X, _CONTEXT)),
    "rmdir": (errno.EPERM, lambda ops: ops.rmdir(pyfuse3.ROOT_INODE, _X, _CONTEXT)),
    "rename": (
        errno.EPERM,
        lambda ops: ops.rename(
            pyfuse3.ROOT_INODE, _X, pyfuse3.ROOT_INODE, _X, pyfuse3.FlagT(0), _CONTEXT
        ),
    ),
}


@pytest.mark.parametrize("what", _FORBIDDEN)
async def test_tree_cannot_be_changed(operations: TraceOperations, what: str) -> None:
    number, request = _FORBIDDEN[what]
    with _refused(number):
        await request(operations)


async def test_bug_in_a_file_is_eio_and_logged_and_later_requests_work(
    operations: TraceOperations,
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = (await _open(operations, tree, "buffer_size_kb")).fh

    def buggy(text: bytes) -> int:
        raise ZeroDivisionError(text)

    with monkeypatch.context() as patch:
        patch.setattr(controls, "kstrtoull", buggy)
        with caplog.at_level(logging.ERROR), _refused(errno.EIO):
            await operations.write(handle, 0, b"7")
    [record] = caplog.records
    assert "write" in record.getMessage()
    assert "a bug" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError

    assert await operations.write(handle, 0, b"8") == 1
    assert bytes(await operations.read(handle, 0, 100)) == b"8 (unloaded)\n"


@pytest.mark.parametrize("handler", ["read", "release", "write"])
async def test_unknown_handle_is_eio(operations: TraceOperations, handler: str) -> None:
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "read": lambda: operations.read(_NO_HANDLE, 0, 1),
        "write": lambda: operations.write(_NO_HANDLE, 0, b"1"),
        "release": lambda: operations.release(_NO_HANDLE),
    }
    with _refused(errno.EIO):
        await requests[handler]()


async def test_refused_request_is_logged_for_debugging_only(
    operations: TraceOperations, tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    handle = (await _open(operations, tree, "tracing_on")).fh
    with caplog.at_level(logging.DEBUG, "hyptracefs"), _refused(errno.EINVAL):
        await operations.write(handle, 0, b"abc")
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert "b'abc' is not a decimal number" in caplog.records[-1].getMessage()


async def test_requests_are_logged_so_that_a_person_can_read_them(
    operations: TraceOperations, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "hyptracefs"):
        await operations.lookup(pyfuse3.InodeT(ROOT_INODE), _name("hypervisor"), _CONTEXT)
        with _refused(errno.EIO):
            await operations.write(_NO_HANDLE, 0, b"a" * 1000)
    looked_up, written, *_ = [record.getMessage() for record in caplog.records]
    assert looked_up == f"lookup(1, b'hypervisor', pid {os.getpid()})"
    assert re.fullmatch(r"write\(\d+, 0, b'a+\.\.\.a+'\)", written)


async def test_handles_of_pipes_say_where_to_read_without_python(
    operations: TraceOperations, tree: Tree
) -> None:
    opened = [
        await _open(operations, tree, name)
        for name in ("trace_pipe", "trace_pipe_raw", "tracing_on")
    ]
    handles = [info.fh for info in opened]
    assert [handle & (PIPE | STREAM) for handle in handles] == [PIPE | STREAM, PIPE | STREAM, 0]
    assert len(set(handles)) == 3


async def test_python_sees_all_reads_where_requests_are_logged(
    operations: TraceOperations, tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    info = await _open(operations, tree, "trace_pipe")
    assert info.fh & (PIPE | STREAM) == STREAM
