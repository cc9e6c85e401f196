"""From magnitudes to masks.

build        the classes that a config stands for
masks        what all networks have in common; ratio masks; the gate
unet         the spectrogram U-Net, as it is trained
per_stem     a U-Net for each stem, as Spleeter has them
guided       a U-Net and the network that it is guided by, Spleeter's for vocals
voting       the masks that both make
low_band     what a guided network hears of the lowest bins at twice the resolution
layers       their layers
inference    the same masks in fewer operations, as it separates
doubling     its transposed convolutions and last layers
folding      its layers without norms
presets      configs of networks, to choose by name
devices      where it runs, in which precision, and the allocator
"""
