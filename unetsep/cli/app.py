"""What the ``app`` command does."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass, replace

from ..app.guard import is_loopback
from ..app.server import AppSettings, run
from .models import ModelChoice
from .terminal import Messages


@dataclass(frozen=True)
class AppOptions:
    """Options of the command.

    Parameters
    ----------
    settings
        How the app runs.
    browser
        Open the page in a browser.
    quiet
        Print nothing.
    """

    settings: AppSettings
    browser: bool
    quiet: bool


def run_app(options: AppOptions) -> None:
    """The ``app`` command: runs until a signal ends it."""
    console = Messages(quiet=options.quiet)

    def started(address: str) -> None:
        console.print(f"The app is at {address} (press Ctrl-C to stop it)")
        if not is_loopback(options.settings.host):
            console.print(
                "Anyone who can reach this machine can use it. How to set a password: "
                "https://github.com/unetsep/unetsep/blob/main/docs/how-to/web-service.md"
            )
        if options.browser and has_screen():
            webbrowser.open(address)

    console.print("Loading the model ...")
    models = tuple(ModelChoice(options.settings.models).names())
    folder = run(replace(options.settings, models=models), started)
    if folder is None:
        console.print("Stopped; all temporary files were removed.")
    else:
        console.print(
            f"Stopped; temporary files may remain in {folder}: the next start of the app removes "
            "them, once the folder is writable."
        )


def has_screen() -> bool:
    """Whether a browser can open a window; a text browser would take over the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
