"""Many songs: who works on which, what made the stems that are there, and what became of each.

batch     the songs of a run, several at a time, each with its time limit
memory    bytes that this process may still take
stopwatch  seconds in which a process ran, for limits of time
songs     one song of many: claimed, compared, separated, recorded
shards    shares of the songs for job arrays
ray       the songs of a run on a Ray cluster
machines  machines of a cluster, and the slots that they have room for
claims    locks that die with their process: two runs never do one song
records   what made a song's stems, in a hidden file beside them
remote    songs and stems at URLs
stem_uploads  stems on their way to a store
store     what lies under a URL: read, written and renamed with patience
log       what became of each song of a run, one JSON line for each
"""
