"""`python -m hyptrace` is the command."""

import sys

from hyptrace.cli import main

sys.exit(main())
