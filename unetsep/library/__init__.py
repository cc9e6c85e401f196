"""Many songs: who works on which, and what made the stems that are there.

songs     one song of many: claimed, compared, separated, recorded
claims    locks that die with their process: two runs never do one song
records   what made a song's stems, in a hidden file beside them
"""
