"""`python -m detour` is `detour`: where the program begins, and may be stopped from.

Nothing is imported before Ctrl-C is looked for. Knows the command line by its name only.
"""

import sys

STOPPED = 130  # what shells report for a program that Ctrl-C ended


def main() -> int:
    """Run the command line; its exit code."""
    try:
        from detour.cli.main import run

        return run()
    except KeyboardInterrupt:  # before there is a command line that would tell it
        sys.stderr.write("detour: stopped\n")
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
