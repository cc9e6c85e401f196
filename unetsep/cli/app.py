"""What the ``app`` command does."""

from __future__ import annotations

import math
import os
import sys
import webbrowser
from dataclasses import asdict, dataclass, replace

from ..app.guard import is_loopback
from ..app.jobs import JobLimits
from ..app.server import AppSettings, run
from .terminal import Messages

MEGABYTE, GIGABYTE = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class LimitOptions:
    """`JobLimits` in convenient units.

    Parameters
    ----------
    max_upload, queue, time_limit, keep, disk
        In MB, songs, minutes, hours and GB.
    """

    max_upload: float
    queue: int
    time_limit: float
    keep: float
    disk: float

    def to_limits(self) -> JobLimits:
        """The limits in the units of the app.

        Raises
        ------
        ValueError
            If a limit is not finite.
        """
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} {value}: expected a finite number")
        return JobLimits(
            upload_bytes=round(self.max_upload * MEGABYTE),
            queue=self.queue,
            seconds=60 * self.time_limit,
            keep_seconds=3600 * self.keep,
            disk_bytes=round(self.disk * GIGABYTE),
        )


@dataclass(frozen=True)
class AppOptions:
    """Options of the command.

    Parameters
    ----------
    settings
        How the app runs, except for its limits.
    limits
        Limits on uploads, time and disk space.
    browser
        Open the page in a browser.
    quiet
        Print nothing.
    """

    settings: AppSettings
    limits: LimitOptions
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
    folder = run(replace(options.settings, limits=options.limits.to_limits()), started)
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
