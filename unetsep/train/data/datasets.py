"""The kinds of data sets that there are."""

from __future__ import annotations

from .index import Index
from .moisesdb import MoisesDb
from .musdb import Musdb
from .pools import Pools
from .song_folders import SongFolders
from .sources import DatasetKind

# By name, in the order in which their recordings are listed.
DATASETS: dict[str, DatasetKind] = {
    kind.name: kind for kind in (Musdb(), SongFolders(), MoisesDb(), Index(), Pools())
}
