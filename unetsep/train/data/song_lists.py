"""The songs of a run: what it trains on, and what it must find again when it is resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...weights.datasets import SONG_LISTS
from ..config import TrainingError
from .cache import content_of
from .recording import Recording
from .sources import first_few, listed_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SongLists:
    """Songs that a run trains on and is selected by; saved with it as ``songs.json``.

    Parameters
    ----------
    songs, valid_songs
        Names, ``origin/split/name``. A recording with an excerpt that is held out is in both.
    recordings
        Of each name the ``stems``, and a hash of the files' ``content``.
    """

    songs: list[str]
    valid_songs: list[str]
    recordings: dict[str, dict[str, str]]

    @classmethod
    def of(cls, train: Sequence[Recording], valid: Sequence[Recording]) -> SongLists:
        """Those of a run's recordings."""
        songs, valid_songs = (
            list(dict.fromkeys(map(listed_name, each))) for each in (train, valid)
        )
        recordings = {
            listed_name(each): {"stems": ", ".join(sorted(each.names)), "content": content_of(each)}
            for each in (*train, *valid)
        }
        return cls(songs, valid_songs, recordings)

    @classmethod
    def read(cls, run: Path) -> SongLists | None:
        """Those that a run began with; None for a run that was started from Python.

        Raises
        ------
        TrainingError
            If its ``songs.json`` cannot be understood.
        """
        path = run / "songs.json"
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            songs, valid_songs = (list(map(str, content[key])) for key in SONG_LISTS)
            recordings = {  # of which older versions noted nothing
                name: {key: note[key] for key in ("stems", "content")}
                for name, note in content.get("recordings", {}).items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path} cannot be understood: {error!r}") from error
        return cls(songs, valid_songs, recordings)

    def to_json(self) -> str:
        """What `read` reads."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def check_resumed(self, run: Path, songs: SongLists) -> None:
        """Make sure that a run is resumed on its own songs; warn of those that have other audio.

        Parameters
        ----------
        run
            Folder of the run, which began with these songs.
        songs
            Those that there are now.

        Raises
        ------
        TrainingError
            If songs differ or are in another order, by which clips are drawn.
        """
        for old, new in (
            *itertools.zip_longest(self.songs, songs.songs),
            *itertools.zip_longest(self.valid_songs, songs.valid_songs),
        ):
            if old != new:
                raise TrainingError(
                    f"{run} resumes only with its own songs, in their order: where songs.json has "
                    f"{old or 'no more'}, there is now {new or 'no more'}; name the folders that "
                    "it began with"
                )
        changes = []
        for name, now in songs.recordings.items():
            before = self.recordings.get(name, now)
            if now["stems"] != before["stems"]:
                changes.append(f"{name} has {now['stems']} instead of {before['stems']}")
            elif now["content"] != before["content"]:
                changes.append(f"{name} has other content")
        if changes:
            logger.warning("the run continues with audio that has changed: %s", first_few(changes))
