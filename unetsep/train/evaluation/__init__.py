"""Scores that can be compared with those of the field.

evaluate     tracks times methods -> scores, reused where they exist
tracks       the songs of an evaluation and their stems
own_songs    the user's own songs and pairs of files
estimates    methods: models, folders of stems, baselines
baselines    mixture, oracle masks, REPET with HPSS
stem_sets    the set in which tracks are scored; sums of stems
scoring      all metrics of one track
sdr          exact SDR
bss_eval     BSS Eval v4: ISR, SIR, SAR
toeplitz     its linear systems
measures     SI-SDR, log-spectral distance by band, log-WMSE
two_f        the 2f-model: how listeners would rate
leakage      leakage into a stem where it is silent
results      scores on disk
statistics   medians and intervals
compare      paired differences of two methods
report       tables
figures      pictures
published    scores of others
"""
