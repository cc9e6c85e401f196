"""Many songs: which run separates which, what made their stems, and the outcome of each.

batch     the songs of a run, several at a time, each with its time limit
memory    memory that this process may still take
songs     one song of many: claimed, compared, separated, recorded
shards    shares of the songs for job arrays
ray       the songs of a run on a Ray cluster
machines  machines of a cluster, and how many slots fit on them
claims    locks that die with their process: two runs never do one song
records   what made a song's stems, in a dotfile beside them
remote    songs and stems at URLs
stem_uploads  uploads of stems to a store
store     files at a URL: read, written and renamed, with retries
file_info  what stores tell of a file: version, time, checksums
urls      parts of URLs, and URLs without secrets
log       the outcome of each song of a run, one JSON line for each
"""
