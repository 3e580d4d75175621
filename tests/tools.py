"""Tools of others, run by `hyptrace exec` on a mount of ours."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.mounts import PATIENCE_S

# Which one, for who has another than the machine's: scripts/newer-trace-cmd.
TRACE_CMD = shlex.split(os.environ.get("TRACE_CMD", "trace-cmd"))

HYPTRACE = (sys.executable, "-m", "hyptrace")


def on(mount: Path, *command: str) -> list[str]:
    """`command`, with `mount` where tools look."""
    return [*HYPTRACE, "exec", "--mount", str(mount), "--", *command]


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What became of it; an error of ours if it does not end."""
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
