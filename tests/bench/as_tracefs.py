"""`python -m tests.bench.as_tracefs DIRECTORY COMMAND...`: hyptrace exec, for any directory."""

import os
import sys
from pathlib import Path

from hyptrace.masks import mask
from hyptrace.namespace import enter

if __name__ == "__main__":
    enter()
    mask(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606
