"""Spleeter's checkpoints as models of unetsep, without TensorFlow.

convert        the network of a checkpoint, as a model of the user's
release        downloads of Deezer's own archives
bundle_files   the files of a checkpoint, from a folder or archive
tensor_bundle  TensorFlow's format of tensors
crc32c         its checksum
"""
