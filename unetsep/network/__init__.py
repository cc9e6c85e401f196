"""From magnitudes to masks.

unet         the spectrogram U-Net, as it is trained
layers       its layers
inference    the same masks in fewer operations, as it separates
presets      networks to choose by name
devices      where it runs, in which precision, and the allocator
"""
