"""From magnitudes to masks.

build        from a config to the classes of its network
masks        the interface of all networks; ratio masks; the gate
unet         the spectrogram U-Net for training
per_stem     a U-Net for each stem, as in Spleeter
guided       a U-Net and its guide, Spleeter's network for vocals
voting       the masks that both vote on
low_band     a branch of guided networks with the lowest bins at twice the resolution
layers       layers of the networks
inference    the same masks in fewer operations, for separating
doubling     transposed convolutions and last layers for separating
folding      BatchNorms folded into convolutions, and mirrored layers
presets      named configs of networks
devices      devices, precisions, and the allocator
"""
