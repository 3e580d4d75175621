"""The tree: each row of the table, with its names, modes, links and lengths."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from hyptracefs.remote import Remote
from hyptracefs.ring_buffer import ALL_CPUS
from hyptracefs.tree import ROOT_INODE, Node, Tree
from tests.support import EVENTS, Calls, hypervisor, make_remote

# SPEC E, V1; events/ as later versions have it. Directories end with a slash.
_FIXED = {
    "hypervisor/": 0o750,
    "hypervisor/buffer_size_kb": 0o640,
    "hypervisor/selftest_event": 0o640,
    "hypervisor/trace": 0o640,
    "hypervisor/trace_clock": 0o440,
    "hypervisor/trace_pipe": 0o640,
    "hypervisor/trace_pipe_raw": 0o440,
    "hypervisor/tracing_on": 0o640,
    "hypervisor/per_cpu/": 0o750,
    "hypervisor/events/": 0o755,
    "hypervisor/events/enable": 0o640,
    "hypervisor/events/header_event": 0o440,
    "hypervisor/events/header_page": 0o440,
    "hypervisor/events/hypervisor/": 0o755,
}
_OF_CPU = {"/": 0o750, "/trace": 0o640, "/trace_pipe": 0o440, "/trace_pipe_raw": 0o440}
_OF_EVENT = {"/": 0o755, "/enable": 0o640, "/format": 0o440, "/id": 0o440}


def _expected(cpus: int) -> dict[str, int]:
    return {
        **_FIXED,
        **{
            f"hypervisor/per_cpu/cpu{cpu}{name}": mode
            for cpu in range(cpus)
            for name, mode in _OF_CPU.items()
        },
        **{
            f"hypervisor/events/hypervisor/{event}{name}": mode
            for event in EVENTS
            for name, mode in _OF_EVENT.items()
        },
    }


@pytest.fixture(params=[1, 2, 12])
def still(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A remote whose run() does not run."""
    with hypervisor(cpus=request.param) as of:
        yield make_remote(of, Calls(of.conduit, of.cpus))


def _nodes(node: Node) -> Iterator[Node]:
    for child in node.children.values():
        yield child
        yield from _nodes(child)


def test_tree_has_exactly_the_files_of_v1_with_their_modes(still: Remote) -> None:
    found = {
        node.path + "/" * node.is_dir: stat.S_IMODE(node.mode) for node in _nodes(Tree(still).root)
    }
    assert found == _expected(still.cpus)


def test_types_are_directory_and_regular_file(still: Remote) -> None:
    for node in _nodes(Tree(still).root):
        assert stat.S_ISDIR(node.mode) == node.is_dir
        assert stat.S_ISREG(node.mode) == (not node.is_dir)


@pytest.mark.parametrize(
    ("path", "nlink"),
    [
        ("hypervisor", 4),
        ("hypervisor/events", 3),
        ("hypervisor/events/hypervisor", 2 + len(EVENTS)),
        ("hypervisor/events/hypervisor/selftest", 2),
        ("hypervisor/trace", 1),
        ("hypervisor/events/enable", 1),
    ],
)
def test_nlink_counts_subdirectories(still: Remote, path: str, nlink: int) -> None:
    tree = Tree(still)
    assert tree.find(path).nlink == nlink
    assert tree.root.nlink == 3
    assert tree.find("hypervisor/per_cpu").nlink == 2 + still.cpus


def test_inodes_are_unique_and_lead_back_to_their_nodes(still: Remote) -> None:
    tree = Tree(still)
    nodes = [tree.root, *_nodes(tree.root)]
    assert len({node.inode for node in nodes}) == len(nodes)
    assert all(tree.node(node.inode) is node for node in nodes)
    assert tree.node(ROOT_INODE) is tree.root


@pytest.mark.parametrize(
    "path", ["nosuch", "hypervisor/per_cpu/cpu99", "hypervisor/trace/x", "hypervisor/write_event"]
)
def test_path_that_is_not_there_is_a_key_error(still: Remote, path: str) -> None:
    with pytest.raises(KeyError):
        Tree(still).find(path)
    with pytest.raises(KeyError):
        Tree(still).node(0)


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("buffer_size_kb", len("7 (unloaded)\n")),
        ("tracing_on", 2),
        ("trace_clock", len("[boot]\n")),
        ("events/enable", 2),
        ("events/hypervisor/hyp_enter/id", 2),
        ("events/hypervisor/selftest/enable", 2),
        ("trace", 0),
        ("trace_pipe", 4096),
        ("trace_pipe_raw", 2**62),
        ("selftest_event", 0),
        ("per_cpu", 0),
    ],
)
def test_size_is_the_length_of_the_text_and_for_pipes_enough_to_be_asked_for(
    still: Remote, path: str, size: int
) -> None:
    assert Tree(still).find(f"hypervisor/{path}").size == size


async def test_size_follows_the_text(still: Remote) -> None:
    tree = Tree(still)
    await still.set_size(4096)
    assert tree.find("hypervisor/buffer_size_kb").size == len("4096 (unloaded)\n")


def test_places_are_those_of_the_path(still: Remote) -> None:
    tree = Tree(still)
    assert tree.find("hypervisor/trace").place.cpu == ALL_CPUS
    for cpu in range(still.cpus):
        assert tree.find(f"hypervisor/per_cpu/cpu{cpu}/trace").place.cpu == cpu
    for event in still.events:
        assert tree.find(f"hypervisor/events/hypervisor/{event.name}/id").place.event is event
