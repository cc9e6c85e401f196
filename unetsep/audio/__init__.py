"""Audio files in and out, as blocks of float32; memory does not grow with the length.

reader       AudioReader: a file, or an excerpt of it, as a stream of blocks
decoder      the decoder protocol, the description of a file, and the known suffixes
libsndfile   the decoder of wav, flac, ogg, opus, mp3, aiff, caf
joined       the decoder of several such files concatenated into one
ffmpeg       the decoder of everything else, by an ``ffmpeg`` program
remainder    what follows damage within a file, by that program
ffmpeg_program  where that program is, and how it is run
channels     the order of channels and their speakers
core_audio   the speakers that caf and aiff name
chunks       the chunks of wav, w64, aiff and caf files, where these end, the boxes of mp4
lengths      the length of a file, by its own bytes
streams      where streams begin in a file that holds several
sections     a part of a file, read as a file of its own
ogg          pages of Ogg files, their serial numbers, the end mark, Opus's head
mp3          frames of mp3 files, their count, and tags around them
flac         the header of a FLAC stream, and its last frame
times        seconds from 90, 1:30 or 1:02:03
formats      the table of output formats: what each holds, and its writer
payload      the audio in a file without its tags
metadata     texts and pictures in Matroska, WebM and AVI files, by ffmpeg
tags         tags and covers of songs: which are copied to stems, and how files store them
tag_writers  writing tags and covers into stems
writers      the writers of wav and of libsndfile's formats, and stored sample types
ffmpeg_writer  what an ``ffmpeg`` program encodes: m4a, .stem.mp4
stem_files   the stems of one song, written together, one gain for all
targets      output paths: checked beforehand, and remedies for failed writes
staging      temporary names for files until they are complete
background   reading ahead and writing in the background
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reader import AudioReader

__all__ = ["AudioReader"]


def __getattr__(name: str) -> Any:
    # Imported on first use: ``--help`` lists the formats without numpy.
    if name != "AudioReader":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reader import AudioReader

    return AudioReader
