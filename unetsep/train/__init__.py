"""Training and evaluation; needs the extra ``train``.

fit            a run, from recordings to checkpoints
config         TrainConfig: the one description of a run
machine        its accelerator and processes
run_folder     its folder: the lock, what describes it, what can be resumed
start          the network that it starts from
module         the networks of a run and one training step
graph          a step as one CUDA graph
datamodule     its clips and validation recordings
calibration    input statistics and the losses' scales, before the first step
schedule       learning rates, and when a run ends
muon           the optimiser
callbacks      averages, checkpoints, ends
interruption   signals that ask a run to end
validation     SDR of the networks in training
distributed    many processes
children       processes that no Ctrl-C reaches
logs           log lines and curves
librosa_modules  modules of librosa, which need folders for caches
data/          from files to clips
losses/        what is minimised
evaluation/    scores, reports, figures
release/       from a run to published checkpoints
"""
