"""``python -m unetsep`` is the ``unetsep`` command."""

from .cli import run

if __name__ == "__main__":
    run()
