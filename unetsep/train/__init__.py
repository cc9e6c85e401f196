"""Training and evaluation; needs ``pip install unetsep[train]``."""
