"""The tree: each row of the tables, with its names, modes, links and lengths."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from hypervisor_model import RemoteTest
from hyptracefs.events import compile_events
from hyptracefs.files import Place
from hyptracefs.remote import Remote
from hyptracefs.ring_buffer import ALL_CPUS
from hyptracefs.tree import ROOT_INODE, Node, Tree, views_of
from tests.support import EVENTS, Calls, hypervisor, make_remote

# SPEC E and the golden stat.txt. Directories end with a slash.
_COMMON = {
    "": 0o750,
    "buffer_size_kb": 0o640,
    "trace": 0o640,
    "tracing_on": 0o640,
    "per_cpu/": 0o750,
    "events/": 0o755,
    "events/enable": 0o640,
    "events/header_event": 0o440,
    "events/header_page": 0o440,
    "events/{remote}/": 0o755,
    "per_cpu/cpu{cpu}/": 0o750,
    "per_cpu/cpu{cpu}/trace": 0o640,
    "per_cpu/cpu{cpu}/trace_pipe": 0o440,
    "events/{remote}/{event}/": 0o755,
    "events/{remote}/{event}/enable": 0o640,
    "events/{remote}/{event}/format": 0o440,
    "events/{remote}/{event}/id": 0o440,
}
_V1 = {
    **_COMMON,
    "buffer_subbuf_size_kb": 0o440,
    "buffer_total_size_kb": 0o440,
    "current_tracer": 0o640,
    "selftest_event": 0o640,
    "statistics": 0o440,
    "set_event": 0o640,
    "trace_clock": 0o440,
    "trace_pipe": 0o640,
    "trace_pipe_raw": 0o440,
    "per_cpu/cpu{cpu}/buffer_size_kb": 0o440,
    "per_cpu/cpu{cpu}/stats": 0o440,
    "per_cpu/cpu{cpu}/trace_pipe_raw": 0o440,
}
_INSTANCE = {
    **{row: mode for row, mode in _V1.items() if row not in {"", "selftest_event", "statistics"}},
    "error_log": 0o640,
    "events/{remote}/filter": 0o640,
    "events/{remote}/{event}/filter": 0o640,
    "options/": 0o750,
    "trace_clock": 0o640,
    "trace_options": 0o440,
    "trace_pipe": 0o440,
    "events/{remote}/enable": 0o640,
}
_TRACING = {
    **_INSTANCE,
    "available_events": 0o440,
    "available_tracers": 0o440,
    "instances/": 0o750,
    "printk_formats": 0o440,
    "saved_cmdlines": 0o440,
    "events/ftrace/": 0o755,
    "events/ftrace/print/": 0o755,
    "events/ftrace/print/format": 0o440,
}
_TEST = {**_COMMON, "trace_pipe": 0o440, "write_event": 0o200}
_MAINLINE = {**_TEST, "trace_clock": 0o440}


def _expand(
    top: str, rows: dict[str, int], remote: str, events: tuple[str, ...], cpus: int
) -> dict[str, int]:
    return {
        top + row.format(cpu=cpu, event=event, remote=remote): mode
        for row, mode in rows.items()
        for cpu in range(cpus)
        for event in events
    }


def _expected(cpus: int) -> dict[str, int]:
    return {
        "remotes/": 0o750,
        "instances/hypervisor/": 0o750,
        **_expand("", _TRACING, "hypervisor", EVENTS, cpus),
        **_expand("instances/hypervisor/", _INSTANCE, "hypervisor", EVENTS, cpus),
        **_expand("hypervisor/", _V1, "hypervisor", EVENTS, cpus),
        **_expand("remotes/hypervisor/", _MAINLINE, "hypervisor", EVENTS, cpus),
        **_expand("remotes/test/", _TEST, "test", ("selftest",), cpus),
    }


@pytest.fixture(params=[1, 2, 12])
def still(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A remote whose run() does not run."""
    with hypervisor(cpus=request.param) as of:
        yield make_remote(of, Calls(of.conduit, of.cpus))


def _test_remote(cpus: int) -> Iterator[Remote]:
    with RemoteTest(cpus) as of:
        yield Remote("test", Calls(of.conduit, of.cpus), compile_events(of.events, ()))


@pytest.fixture
def still_test(still: Remote) -> Iterator[Remote]:
    yield from _test_remote(still.cpus)


@pytest.fixture
def tree(still: Remote, still_test: Remote) -> Tree:
    return Tree(views_of(still, still_test))


def _nodes(node: Node) -> Iterator[Node]:
    for child in node.children.values():
        yield child
        yield from _nodes(child)


def test_tree_has_exactly_the_files_of_its_views_with_their_modes(
    tree: Tree, still: Remote
) -> None:
    found = {node.path + "/" * node.is_dir: stat.S_IMODE(node.mode) for node in _nodes(tree.root)}
    assert found == _expected(still.cpus)


def test_types_are_directory_and_regular_file(tree: Tree) -> None:
    for node in _nodes(tree.root):
        assert stat.S_ISDIR(node.mode) == node.is_dir
        assert stat.S_ISREG(node.mode) == (not node.is_dir)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2750])
def test_top_has_the_mode_that_was_asked_for(still: Remote, still_test: Remote, mode: int) -> None:
    assert Tree(views_of(still, still_test), mode).root.mode == stat.S_IFDIR | mode


def test_hypervisor_that_is_named_test_takes_the_place_of_the_test_remote(
    still: Remote, still_test: Remote
) -> None:
    still.name = "test"
    tree = Tree(views_of(still, still_test))
    assert set(tree.find("remotes").children) == {"test"}
    assert "trace_clock" in tree.find("remotes/test").children


@pytest.mark.parametrize(
    ("path", "nlink"),
    [
        ("hypervisor", 4),
        ("hypervisor/events", 3),
        ("hypervisor/events/hypervisor", 2 + len(EVENTS)),
        ("hypervisor/events/hypervisor/selftest", 2),
        ("hypervisor/trace", 1),
        ("hypervisor/events/enable", 1),
        ("events", 4),
        ("remotes", 4),
        ("remotes/hypervisor", 4),
        ("remotes/test", 4),
    ],
)
def test_nlink_counts_subdirectories(tree: Tree, still: Remote, path: str, nlink: int) -> None:
    assert tree.find(path).nlink == nlink
    assert tree.root.nlink == 2 + 6
    assert tree.find("hypervisor/per_cpu").nlink == 2 + still.cpus


def test_inodes_are_unique_and_lead_back_to_their_nodes(tree: Tree) -> None:
    nodes = [tree.root, *_nodes(tree.root)]
    assert len({node.inode for node in nodes}) == len(nodes)
    assert all(tree.node(node.inode) is node for node in nodes)
    assert tree.node(ROOT_INODE) is tree.root


@pytest.mark.parametrize(
    "path",
    [
        "nosuch",
        "hypervisor/per_cpu/cpu99",
        "hypervisor/trace/x",
        "hypervisor/write_event",
        "remotes/hypervisor/selftest_event",
        "remotes/hypervisor/trace_pipe_raw",
        "remotes/test/trace_clock",
    ],
)
def test_path_that_is_not_there_is_a_key_error(tree: Tree, path: str) -> None:
    with pytest.raises(KeyError):
        tree.find(path)
    with pytest.raises(KeyError):
        tree.node(0)


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("buffer_size_kb", len("7 (unloaded)\n")),
        ("tracing_on", 2),
        ("trace_clock", len("[boot]\n")),
        ("events/enable", 2),
        ("events/hypervisor/hyp_enter/id", 2),
        ("events/hypervisor/selftest/enable", 2),
        ("trace", 4096),
        ("trace_pipe", 4096),
        ("trace_pipe_raw", 2**62),
        ("selftest_event", 0),
        ("set_event", 0),
        ("per_cpu", 0),
    ],
)
async def test_size_is_the_length_of_the_text_and_for_pipes_enough_to_be_asked_for(
    tree: Tree, path: str, size: int
) -> None:
    assert await tree.find(f"hypervisor/{path}").size() == size


async def test_size_follows_the_text(tree: Tree, still: Remote) -> None:
    await still.set_size(4096)
    for view in "hypervisor", "remotes/hypervisor":
        assert await tree.find(f"{view}/buffer_size_kb").size() == len("4096 (unloaded)\n")
    assert await tree.find("remotes/test/buffer_size_kb").size() == len("7 (unloaded)\n")


def test_an_event_file_that_is_of_no_event_is_a_bug(still: Remote) -> None:
    with pytest.raises(AssertionError, match="stands outside events/"):
        assert Place(still).the_event


def test_places_are_those_of_the_path(tree: Tree, still: Remote) -> None:
    def cpu_at(path: str) -> int:
        file = tree.find(path).file
        assert file is not None
        return file.place.cpu

    assert cpu_at("hypervisor/trace") == ALL_CPUS
    for cpu in range(still.cpus):
        assert cpu_at(f"hypervisor/per_cpu/cpu{cpu}/trace") == cpu
    for event in still.events:
        file = tree.find(f"hypervisor/events/hypervisor/{event.name}/id").file
        assert file is not None
        assert file.place.event is event
