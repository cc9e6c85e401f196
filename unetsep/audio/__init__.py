"""Sound files in and out, as blocks of float32; memory does not grow with the length.

reader       AudioReader: a file, or an excerpt of it, as a stream of blocks
decoder      what a decoder is, what a file says of itself, which suffixes there are
libsndfile   the decoder of wav, flac, ogg, opus, mp3, aiff, caf
ffmpeg       the decoder of everything else, by an ``ffmpeg`` program
lengths      how long a file is, by its own bytes
formats      which output format holds what, samples in the type that it stores
writers      the writers of wav, flac, ogg, mp3
stem_files   the stems of one song, written together, one gain for all
staging      files under other names until they are complete
background   reading ahead and writing in the background
"""

from .reader import AudioReader

__all__ = ["AudioReader"]
