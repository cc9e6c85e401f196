"""Sound files in and out, as blocks of float32; memory does not grow with the length.

reader       AudioReader: a file, or an excerpt of it, as a stream of blocks
decoder      what a decoder is, what a file says of itself, which suffixes there are
libsndfile   the decoder of wav, flac, ogg, opus, mp3, aiff, caf
joined       the decoder of several of these that were copied one behind the other
ffmpeg       the decoder of everything else, by an ``ffmpeg`` program
channels     the order of channels, and for which speakers they are
core_audio   the speakers that caf and aiff name
chunks       the chunks of wav, w64, aiff and caf files, where these end, the boxes of mp4
lengths      how long a file is, by its own bytes
streams      where streams begin in a file that holds several
sections     a part of a file as a file in itself
ogg          pages of Ogg files, their serial numbers, whether the last is there, Opus's head
mp3          frames of mp3 files, their count, and tags around them
flac         what the header of a FLAC stream says, and what its last frame says
times        seconds from 90, 1:30 or 1:02:03
formats      the table of output formats: what each holds, what writes it
tags         tags and covers of songs: which travel to stems, and how files hold them
tag_writers  these, written into files of stems
writers      the writers of wav and of what libsndfile encodes, samples as they are stored
ffmpeg_writer  what an ``ffmpeg`` program encodes: m4a, .stem.mp4
stem_files   the stems of one song, written together, one gain for all
targets      where they go: checked beforehand, and what to do where it fails
staging      files under other names until they are complete
background   reading ahead and writing in the background
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reader import AudioReader

__all__ = ["AudioReader"]


def __getattr__(name: str) -> Any:
    # Imported when it is used: the formats are listed by ``--help``, which needs no numpy.
    if name != "AudioReader":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reader import AudioReader

    return AudioReader
