"""A page that plays stems, and pictures of them; the player itself is in ``web/``.

songs        the songs, models and stems of a folder
overview     waveform and spectrogram of a stem, in constant memory
pieces       the audio of a song as scripts of a few seconds
page         index.html: template, player, data
plots        one picture per song: mixture, masks, stems
"""
