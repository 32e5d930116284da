"""`python3 -m lab`.  Runs on the host."""

import sys

from .cli import main

sys.exit(main())
