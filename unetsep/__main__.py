"""``python -m unetsep`` is the ``unetsep`` command."""

from .cli import main

if __name__ == "__main__":
    main()
