#!/bin/sh
# Train the default model, mse-mixing, once more:
#
#     sh benchmarks/default_model.sh MUSDB18-7 SONGS POOLS FOLDER
#
# Begins with the bundled mse-long, whose own commands are in docs/models.md. It gets layers that
# mix bins; then, in each round, two networks go their own ways from the same weights, and the
# mean of both is where the next round begins. The two of a round run side by side, each on one
# core: an hour and a quarter in all. What FOLDER holds already is not trained again, so a script
# that broke off can be started once more; delete the folder of the run that broke off.
set -eu
[ $# -eq 4 ] || { echo "usage: $0 MUSDB18-7 SONGS POOLS FOLDER" >&2; exit 2; }
musdb=$1 songs=$2 pools=$3 folder=$4
mild="--varispeed 0.08 --eq-db 2 --second-share vocals=0.2,drums=0.1,other=0.4"
strong="--varispeed 0.12 --eq-db 4 --second-share vocals=0.3,drums=0.1,other=0.5"

branch() { # RUN FIRST-WEIGHTS SEED STEPS VALID-EVERY OPTIONS...
    run=$folder/$1 first=$2 seed=$3 steps=$4 every=$5
    shift 5
    [ -e "$run/done" ] && return
    unetsep train --loss mse --network mixing --run "$run" --init-from "$first" --seed "$seed" \
        --musdb-root "$musdb" --songs "$songs" --pools "$pools" \
        --max-steps "$steps" --valid-every "$every" --schedule plateau --ema-decay 0.998 \
        --muon-size 0.4 --precision fp32 --threads 1 --workers 0 "$@"
    touch "$run/done"
}

branch start mse-long 11 800 100 $mild
weights=$folder/start/best-mse.safetensors
for round in 1 2 3 4; do
    branch "mild-$round" "$weights" $((29 + 2 * round)) 400 400 $mild &
    mild_run=$!
    branch "strong-$round" "$weights" $((30 + 2 * round)) 400 400 $strong
    wait $mild_run
    weights=$folder/round-$round.safetensors
    [ -e "$weights" ] || unetsep average -o "$weights" \
        "$folder/mild-$round/best-mse.safetensors" "$folder/strong-$round/best-mse.safetensors"
done
