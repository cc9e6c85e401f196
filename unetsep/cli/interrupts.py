"""SIGINT, SIGTERM and SIGHUP (Ctrl-C, kill, a closed terminal), none of which may get lost."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from types import FrameType

from ..unfinished import ENDING

# Exit codes, as shells give them.
INTERRUPTED = 128 + signal.SIGINT
KILLED = {128 + number: number for number in ENDING if number != signal.SIGINT}
# Seconds; callbacks of the interpreter are over long before, and users do not notice the wait.
PAUSE = 0.02

_number = 0


def obey_signals() -> None:
    """Let SIGTERM and SIGHUP clean up as Ctrl-C does, and let no signal get lost."""
    signal.signal(signal.SIGINT, _interrupt)
    for number in KILLED.values():
        # With nohup, the process is to outlive the terminal.
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    sys.unraisablehook = deliver_again


def signal_number() -> int:
    """The signal that asked us to end, or 0: libraries may turn its exception into another."""
    return _number


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _number
    _number = number
    signal.default_int_handler(number, frame)


def _end(number: int, _: FrameType | None) -> None:
    global _number
    _number = number
    sys.exit(128 + number)


def deliver_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Resend a signal whose exception occurred where none can be raised.

    Python handles a signal between any two instructions. In a callback of the garbage collector
    it prints the exception and continues as if nobody had pressed Ctrl-C.
    """
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        number = signal.SIGINT
    elif isinstance(error, SystemExit) and error.code in KILLED:
        number = KILLED[error.code]
    else:
        sys.__unraisablehook__(unraisable)
        return
    # Not `threading.Thread`: this may be called while its locks are held.
    with contextlib.suppress(RuntimeError):  # Python is ending anyway
        _thread.start_new_thread(_send, (number,))


def _send(number: signal.Signals) -> None:
    time.sleep(PAUSE)
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # also wakes it if it waits
    else:
        _thread.interrupt_main(number)
