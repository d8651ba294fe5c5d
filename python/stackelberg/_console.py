"""The script `stackelberg`: the command line of the program, in a Python process."""

from __future__ import annotations

import signal
import sys

from ._lib import command_line


def main() -> int:
    """Run the command line of this process, and return the exit code."""
    # Ctrl-C is the command line's own: it ends a command, or stops it so that it can be resumed. Python's handler would
    # only note it until the command is over.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command_line(["stackelberg", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
