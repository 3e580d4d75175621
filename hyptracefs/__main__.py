"""`python -m hyptracefs`."""

import sys

from hyptracefs.cli import main

sys.exit(main())
