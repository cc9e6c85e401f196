"""From a run to published checkpoints.

export       a run's best networks as checkpoints and manifest entries
publish      to the hub
average      the mean of several networks' weights
command      the command that made a run
"""
