"""`python -m detour` is `detour`."""

import sys

from detour.cli.main import run

sys.exit(run())
