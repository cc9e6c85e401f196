"""The process that separates songs for the app, one after another.

Decoders are C libraries that read untrusted files. If one crashes or hangs, or the system kills
the process for its memory, one job fails and the app continues. The process that serves HTTP
needs no torch.

Both sides send JSON, one value to a line: requests arrive on stdin, messages leave on the
original stdout. When stdin ends the app is gone, and this process exits at once.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import CancelledError, UnetsepError, is_out_of_memory

if TYPE_CHECKING:
    from ..separator import Separator

MAX_MODELS = 2  # in memory
PERIOD = 0.25  # s between messages of progress
Message = Mapping[str, Any]
Send = Callable[[Message], None]


class Requests:
    """Requests of the app, read by a thread, so that a job can be cancelled while it runs.

    Parameters
    ----------
    lines
        One request each; see `open_channels`.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._lines:
            request = json.loads(line)
            if "cancel" in request:
                self._cancelled.add(request["cancel"])
            else:
                self._queue.put(request)
        leave()

    def take(self) -> dict[str, Any]:
        """Wait for the next request."""
        return self._queue.get()

    def forget(self, job: str) -> None:
        """Forget a job that has ended."""
        self._cancelled.discard(job)

    def cancelled(self, job: str) -> bool:
        """Whether a job was cancelled."""
        return job in self._cancelled


class SeparatorCache:
    """The separators used last.

    Parameters
    ----------
    device
        See `unetsep.separator.Separator`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._separators: OrderedDict[str, Separator] = OrderedDict()

    def get(self, model: str) -> Separator:
        """The separator of a model, loaded if it is not cached.

        Raises
        ------
        WeightsError
            If it cannot be loaded.
        """
        from ..separator import Separator

        if model not in self._separators:
            while len(self._separators) >= MAX_MODELS:
                self._separators.popitem(last=False)
            self._separators[model] = Separator(model, device=self._device)
        self._separators.move_to_end(model)
        return self._separators[model]


def separate(
    request: Message, separators: SeparatorCache, advance: Callable[[str, float], None]
) -> dict[str, Any]:
    """Separate one song into ``stems`` of its folder, and write its ``player``.

    Parameters
    ----------
    request
        ``source``, ``folder``, ``name`` and what `unetsep.app.choices.JobChoice` adds.
    separators
        Loads the models.
    advance
        Called with the stage and its completed share, 0 to 1, or -1 if unknown; it raises
        `CancelledError` to end the job.

    Returns
    -------
    dict
        The report of `unetsep.files.separate_file`, with the file names of the stems.

    Raises
    ------
    UnetsepError, ValueError
        If it cannot be separated.
    """
    from ..file_options import FileOptions
    from ..files import separate_file
    from ..listen.page import write_page
    from ..listen.songs import Song, order_stems

    folder = Path(request["folder"])
    separator = separators.get(request["model"]).with_passes(request["passes"])
    options = FileOptions(**request["options"])
    names = options.select(separator).names
    (folder / "stems").mkdir()
    targets = [folder / "stems" / f"{name}.{options.suffix}" for name in names]

    def progress(seconds: float, total: float | None) -> None:
        advance("separating", min(1.0, seconds / total) if total else -1.0)

    (report,) = separate_file(Path(request["source"]), [separator], [targets], options, progress)
    if request["player"]:
        (folder / "player").mkdir()
        song = Song(request["name"], {"": order_stems(report.stems)})
        write_page(folder / "player", [song], lambda _, share: advance("preparing", share))
    return report.to_dict() | {"stems": {n: p.name for n, p in report.stems.items()}}


class ProgressReporter:
    """Sends progress to the app, at most every `PERIOD`, and ends the job when it is cancelled."""

    def __init__(self, send: Send, requests: Requests, job: str) -> None:
        self._send, self._requests, self._job = send, requests, job
        self._last = 0.0

    def __call__(self, stage: str, share: float) -> None:
        """Send a stage and its share; raises `CancelledError` if the job was cancelled."""
        if self._requests.cancelled(self._job):
            raise CancelledError("cancelled")
        now = time.monotonic()
        if now - self._last >= PERIOD:
            self._last = now
            self._send({"stage": stage, "share": share})


def answer(
    request: Message, separators: SeparatorCache, advance: ProgressReporter
) -> dict[str, Any]:
    """Process a request; returns the result as a message without paths of this machine."""

    def public(text: str) -> str:
        text = text.replace(str(request["source"]), request["name"])
        text = text.replace(str(request["folder"]), "the job's folder")
        return re.sub(r" or choose another folder with -o|[;:] choose [^;:]* with -o", "", text)

    try:
        report = separate(request, separators, advance)
        return {"done": report | {"warnings": [public(text) for text in report["warnings"]]}}
    except CancelledError:
        return {"cancelled": True}
    except (UnetsepError, ValueError) as error:
        text = str(error)
    except OSError as error:
        text = f"the files could not be written: {error.strerror or error}"
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = "out of memory"
    return {"failed": public(text)}


def leave() -> NoReturn:
    """Exit at once, with decoders that may hang: the app is gone, perhaps killed."""
    if os.name != "nt" and os.getpgrp() == os.getpid():  # only a group of its own
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def open_channels() -> tuple[Iterable[str], Send]:
    """Requests from the original stdin, and a function that sends messages to the original stdout.

    Afterwards stdin is empty, and what libraries print goes to stderr. On Windows, loading a
    library and starting a program access stdin: they would block while a thread reads a pipe
    there.
    """
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except OSError:
            leave()

    return lines, send


def load(settings: Message) -> tuple[SeparatorCache, dict[str, Any]]:
    """Load the first model; returns the stems of each model as a message."""
    import torch

    from ..audio.ffmpeg import keep_in_group
    from ..audio.libsndfile import hide_decoder_chatter
    from ..network.devices import keep_freed_memory
    from ..weights.manifest import find_checkpoint, is_path

    keep_freed_memory()
    hide_decoder_chatter()
    keep_in_group()
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    separators = SeparatorCache(settings["device"])
    stems: dict[str, list[str]] = {}
    for model in settings["models"]:
        load_now = is_path(model) or not stems
        names = separators.get(model).stems if load_now else find_checkpoint(model).config["stems"]
        stems[model] = list(names)
    return separators, {"ready": stems}


def main() -> None:
    """Answer requests until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # handled by the app, which ends this
        signal.signal(number, signal.SIG_IGN)
    lines, send = open_channels()
    requests = Requests(lines)
    try:
        separators, ready = load(requests.take())
    except (UnetsepError, ValueError) as error:
        send({"failed": str(error)})
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        send({"failed": "out of memory; close other programs or use --device cpu"})
        return
    send(ready)
    while True:
        request = requests.take()
        send(answer(request, separators, ProgressReporter(send, requests, request["job"])))
        requests.forget(request["job"])
