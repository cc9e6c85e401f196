"""The command ``unetsep``, alone or as ``python -m unetsep``: its process begins here."""

import sys


def run() -> None:
    """Import the command, and run it: Ctrl-C may come in that first tenth of a second, too."""
    try:
        from .cli import run as run_command
    except KeyboardInterrupt:
        sys.exit(130)  # `interrupts.INTERRUPTED`, which may be what was being imported
    run_command()


if __name__ == "__main__":
    run()
