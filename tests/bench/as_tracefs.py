"""`python -m tests.bench.as_tracefs DIRECTORY COMMAND...`: hyptrace exec, for any directory."""

import os
import sys
from pathlib import Path

from hyptrace.masks import mask
from hyptrace.namespace import bind, enter

# Of the machine's functions. trace-cmd clears them first, and gives up where it may not.
_FUNCTIONS = ("set_ftrace_filter", "set_ftrace_notrace")
_TRACING = Path("/sys/kernel/tracing")

if __name__ == "__main__":
    enter()
    mask(Path(sys.argv[1]))
    for name in _FUNCTIONS:
        if (_TRACING / name).exists():
            bind(Path(os.devnull), _TRACING / name)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606
