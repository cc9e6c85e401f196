#!/bin/sh
# Train the seven networks of the comparison of losses, all on the same batches:
#
#     sh recipes/losses.sh MUSDB18-7 SONGS POOLS RUN [OPTIONS...]
#
# OPTIONS of `unetsep train` overrule those below: `--losses mse,l1 --seed 1` is the second seed.
# It takes seven minutes of a large GPU; with ACCELERATOR=cpu before it, a day or more of a core.
# If it is interrupted, start it again: it resumes, and skips completed trainings. Then
# `unetsep export RUN`.
set -eu
[ $# -ge 4 ] || { echo "usage: $0 MUSDB18-7 SONGS POOLS RUN [OPTIONS...]" >&2; exit 2; }
musdb=$1 songs=$2 pools=$3 run=$4
shift 4
. "$(dirname "$0")/trainings.sh"
machine=--resident
[ "${ACCELERATOR:-gpu}" = gpu ] || machine="--accelerator cpu"

if [ -e "$run/done" ]; then
    echo "$run has been trained"
elif [ -e "$run/last.ckpt" ]; then
    begin "$run" --resume --musdb-root "$musdb" --songs "$songs" --pools "$pools" $machine "$@"
else
    # A folder of this script alone is marked, so that weights in it are those of a run that was
    # killed before its first checkpoint. Weights in any other folder are not removed.
    [ -n "$(ls -A "$run" 2>/dev/null)" ] || { mkdir -p "$run" && touch "$run/begun"; }
    [ ! -e "$run/begun" ] || resumable "$run" || :
    begin "$run" --losses mse,mag_mse,mel_mse,l1,log_mse,mag_l1,perceptual \
        --musdb-root "$musdb" --songs "$songs" --pools "$pools" --held-out 0 \
        --leave-out everything-is-free-caesium=vocals,other \
        --leave-out big-stone-culture-fragile-thoughts=vocals \
        --leave-out vocals/producerspace-06 \
        --leave-out "St Vitus - Word Gets Around=drums" \
        --varispeed 0.12 --eq-db 4 --second-share vocals=0.3,drums=0.1,other=0.5 \
        --coherent-share 0.5 --coherent-varispeed 0.25 --schedule plateau --precision fp32 \
        --batch-size 16 --max-steps 1600 --valid-every 400 --ema-decay 0.998 --seed 0 \
        $machine "$@"
fi
finish
rm -f "$run/begun"
