#!/bin/sh
# The earlier, smaller comparison of losses, on one CPU core:
#
#     sh recipes/small_comparison.sh MUSDB18-7 SONGS POOLS FOLDER
#
# FOLDER/four-stems holds seven networks for four stems, FOLDER/vocals five for vocals alone.
# If it is interrupted, start it again: it resumes, and skips completed trainings.
set -eu
[ $# -eq 4 ] || { echo "usage: $0 MUSDB18-7 SONGS POOLS FOLDER" >&2; exit 2; }
musdb=$1 songs=$2 pools=$3 folder=$4
. "$(dirname "$0")/trainings.sh"

train() { # RUN OPTIONS...
    run=$folder/$1
    shift
    [ -e "$run/done" ] && return
    if resumable "$run"; then
        set -- --resume
    else
        set -- --network small --optimizer adamw --valid-every 100 --precision fp32 --seed 0 "$@"
    fi
    begin "$run" "$@" --musdb-root "$musdb" --songs "$songs" --pools "$pools" --threads 1
    finish
}

train four-stems --losses mse,mag_mse,mel_mse,l1,log_mse,mag_l1,perceptual --max-steps 500
train vocals --losses mse,l1,log_mse,mel_mse,log_mse_120 --targets vocals --max-steps 300
