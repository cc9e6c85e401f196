"""What the ``app`` command does, and how it says where the app is."""

from __future__ import annotations

import math
import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from ..app.guard import host_name, is_address, is_loopback
from ..app.jobs import JobLimits
from ..app.server import AppSettings, run
from .terminal import Messages

MEGABYTE, GIGABYTE = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class AppOptions:
    """Options of the command.

    Parameters
    ----------
    host, port, names, models, device, threads, folder
        See `unetsep.app.server.AppSettings`.
    max_upload, queue, time_limit, keep, disk
        Of `unetsep.app.jobs.JobLimits`, in MB, songs, minutes, hours and GB.
    browser
        Open the page.
    quiet
        Say nothing.
    """

    host: str
    port: int
    names: tuple[str, ...]
    models: tuple[str, ...]
    device: str
    threads: int | None
    folder: Path | None
    max_upload: float
    queue: int
    time_limit: float
    keep: float
    disk: float
    browser: bool
    quiet: bool

    def settings(self) -> AppSettings:
        """The same for the app.

        Raises
        ------
        ValueError
            If a limit or a name is none.
        """
        for name in ("max_upload", "time_limit", "keep", "disk"):
            if not math.isfinite(getattr(self, name)):
                option = name.replace("_", "-")
                raise ValueError(f"--{option} {getattr(self, name)}: expected a finite number")
        for name in self.names:
            if host_name(name) != name.lower() and not is_address(name):
                raise ValueError(
                    f"--allow-host {name}: expected a name alone, such as songs.example.org, "
                    "without http:// and port"
                )
        limits = JobLimits(
            upload_bytes=round(self.max_upload * MEGABYTE),
            queue=self.queue,
            seconds=60 * self.time_limit,
            keep_seconds=3600 * self.keep,
            disk_bytes=round(self.disk * GIGABYTE),
        )
        return AppSettings(
            self.host,
            self.port,
            self.names,
            self.models,
            self.device,
            self.threads,
            limits,
            self.folder,
        )


def run_app(options: AppOptions) -> None:
    """The ``app`` command: until a signal ends it."""
    console = Messages(quiet=options.quiet)

    def started(address: str) -> None:
        console.print(f"The app is at {address} (Ctrl-C ends it)", markup=False)
        if not is_loopback(options.host):
            console.print(
                "Everybody who can reach this machine can use it. See "
                "docs/how-to/web-service.md for a password."
            )
        if options.browser and has_screen():
            webbrowser.open(address)

    console.print("Loading the model ...")
    run(options.settings(), started)
    console.print("Stopped; all temporary files were removed.")


def has_screen() -> bool:
    """Whether a browser with a window could be opened; one in the terminal would take it over."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
