"""From samples to spectra and back, block by block.

arrays       checked audio arrays and sample rates of callers; a queue of samples
spectrogram  streaming STFT and its exact inverse; masks above the network's band
resample     streaming resampling, and the resampler's residual
segments     overlapping segments with cross-faded masks, several at once
wiener       multichannel Wiener filter over the stems
threads      threads with their own torch settings, which leave the host's alone
transfer     upload to a GPU and download; stems as 16-bit integers
song_stream  a song as a stream of blocks through one or more models
signal_path  the whole path of one song: blocks in, stems out
passes       several passes of one song at other pitches, averaged
"""
