"""From samples to spectra and back, block by block.

arrays       what callers hand over, checked
spectrogram  streaming STFT and its exact inverse; masks above the network's band
resample     streaming resampling, and the queue that holds samples until enough are there
segments     segments of frames, masks cross-faded between them, several at once
wiener       multichannel Wiener filter over the stems
threads      threads of our own, which leave the host's settings of torch alone
transfer     samples on their way to a GPU and back; stems as 16-bit integers
song_stream  a song as a stream of blocks, pushed through one or more models
passes       the whole path of one song: blocks in, stems out; several passes averaged
"""
