"""From files to batches of clips.

sources       where recordings come from, and what a kind of data set is
musdb         MUSDB18: where it is, its songs and streams
song_folders  the user's own songs
moisesdb      MoisesDB, whose stems are sums of recordings
index         songs that a JSON file names, as mirdata's do
pools         single stems
datasets      all kinds of data sets
decode        audio files as arrays, a source's as int16 samples
cache         recordings decoded once, memory-mapped
recording     a decoded recording, or a part of one
run_data      the data of a run, as it is stored with it
song_lists    the songs of a run, as they are listed with it
clip_plans    what a clip is made of, by its number
augment       changes of recordings on their way into a clip
clips         clips as tensors
loaders       batches for one process of many
"""
