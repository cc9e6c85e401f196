#!/bin/sh
# Train the default model, mse-long:
#
#     sh recipes/default_model.sh MUSDB18-7 SONGS POOLS FOLDER
#
# 1. The network without layers that mix bins, then the same with more varied clips.
# 2. Layers that mix bins, and four rounds: in each, two networks go their own ways from the same
#    weights, and the mean of both is where the next round begins.
# 3. Most of the training: sixteen clips a step, even more varied, without doubtful recordings.
# 4. Three networks are trained further with the loss on magnitudes; the mean of all four.
#
# 1, 2 and 4 run on a CPU, four to five hours of two cores; 3 needs a GPU, five to ten minutes of
# a large one. What FOLDER holds already is not trained again, so a script that broke off can be
# started again; delete the folder of the run that broke off.
set -eu
[ $# -eq 4 ] || { echo "usage: $0 MUSDB18-7 SONGS POOLS FOLDER" >&2; exit 2; }
musdb=$1 songs=$2 pools=$3 folder=$4
mild="--varispeed 0.08 --eq-db 2 --second-share vocals=0.2,drums=0.1,other=0.4"
strong="--varispeed 0.12 --eq-db 4 --second-share vocals=0.3,drums=0.1,other=0.5"
cpu="--accelerator cpu --threads 1 --workers 0"

train() { # RUN OPTIONS...
    run=$folder/$1
    shift
    [ -e "$run/done" ] && return
    unetsep train --run "$run" --musdb-root "$musdb" --songs "$songs" --pools "$pools" \
        --schedule plateau --precision fp32 "$@"
    touch "$run/done"
}

average() { # OUTPUT WEIGHTS...
    [ -e "$1" ] || unetsep average -o "$@"
}

branch() { # RUN FIRST-WEIGHTS SEED STEPS VALID-EVERY OPTIONS...
    run=$1 first=$2 seed=$3 steps=$4 every=$5
    shift 5
    train "$run" --loss mse --init-from "$first" --seed "$seed" --max-steps "$steps" \
        --valid-every "$every" --ema-decay 0.998 --muon-size 0.4 $cpu "$@"
}

varied() { # RUN LOSS FIRST-WEIGHTS SEED OPTIONS...
    run=$1 loss=$2 first=$3 seed=$4
    shift 4
    train "$run" --loss "$loss" --init-from "$first" --seed "$seed" --held-out 0 $strong \
        --coherent-share 0.5 --coherent-varispeed 0.25 \
        --leave-out everything-is-free-caesium=vocals,other \
        --leave-out big-stone-culture-fragile-thoughts=vocals \
        --leave-out vocals/producerspace-06 \
        --leave-out "St Vitus - Word Gets Around=drums" "$@"
}

train first --loss mse --network small --optimizer adamw --seed 0 --max-steps 5000 \
    --valid-every 200 --ema-decay 0.998 $cpu
branch second "$folder/first/best-mse.safetensors" 6 1600 200 --network small $mild
branch start "$folder/second/best-mse.safetensors" 11 800 100 --network mixing $mild
weights=$folder/start/best-mse.safetensors
for round in 1 2 3 4; do
    branch "mild-$round" "$weights" $((29 + 2 * round)) 400 400 $mild &
    mild_run=$!
    branch "strong-$round" "$weights" $((30 + 2 * round)) 400 400 $strong
    wait $mild_run
    weights=$folder/round-$round.safetensors
    average "$weights" \
        "$folder/mild-$round/best-mse.safetensors" "$folder/strong-$round/best-mse.safetensors"
done

varied long mse "$weights" 100 --max-steps 8019 --valid-every 500 --ema-decay 0.999 \
    --muon-size 0.4 --batch-size 16 --accelerator gpu --resident
long=$folder/long/best-mse.safetensors
for seed in 202 203 204; do
    varied "magnitude-$seed" mag_mse "$long" $seed --max-steps 400 --valid-every 400 \
        --ema-decay 0.99 --muon-size 0.2 $cpu
done
average "$folder/mse-long.safetensors" "$long" "$folder/magnitude-202/best-mag_mse.safetensors" \
    "$folder/magnitude-203/best-mag_mse.safetensors" "$folder/magnitude-204/best-mag_mse.safetensors"
