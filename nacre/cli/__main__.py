"""`python -m nacre.cli`: the same as the `nacre` command."""

import sys

from nacre.cli import main

sys.exit(main())
