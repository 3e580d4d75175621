"""`python -m hypervisor_model` is `hyp-model`."""

import sys

from hypervisor_model.cli import main

sys.exit(main())
