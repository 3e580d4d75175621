"""The mount from start to end, with a pyfuse3 that mounts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from hyptracefs.fuse import TraceOperations
from hyptracefs.fuse_hook import pyfuse3
from hyptracefs.mounts import MountError
from hyptracefs.options import parse_options
from hyptracefs.serve import MountRequest, _fuse_options, _mount
from hyptracefs.sources import Source


def _request(mountpoint: Path, *options: str) -> MountRequest:
    source = cast("Source", None)
    return MountRequest(source, "unix:/s", str(mountpoint), parse_options(options))


def test_a_mount_that_is_gone_again_ends_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(pyfuse3, "init", lambda *_: done.append("init"))
    monkeypatch.setattr(pyfuse3, "close", lambda unmount: done.append(f"close({unmount})"))
    with pytest.raises(MountError, match=f"^{tmp_path}: mounted, but gone again"):
        _mount(cast("TraceOperations", None), _request(tmp_path))
    assert done == ["init", "close(True)"]


def test_the_source_is_the_name_in_the_mount_table_unless_another_is_given(
    tmp_path: Path,
) -> None:
    given = _fuse_options(_request(tmp_path, "fsname=lab,nodev"))
    assert {"fsname=lab", "nodev", "subtype=hyptracefs"} <= given
    assert not any(option.startswith("fsname=unix") for option in given)
    assert "fsname=unix:/s" in _fuse_options(_request(tmp_path))
