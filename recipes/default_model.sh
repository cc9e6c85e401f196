#!/bin/sh
# Train the model fast (1 to 4) and, from it, the default, guided (5 to 8):
#
#     sh recipes/default_model.sh MUSDB18-7 SONGS POOLS FOLDER [2STEMS]
#
# 1. The network without layers that mix bins, then the same with more varied clips.
# 2. Layers that mix bins, and four rounds: in each, two networks are trained separately from the
#    same weights, and the next round starts from their mean.
# 3. Most of the training: sixteen clips a step, even more varied, without doubtful recordings.
# 4. Three networks are trained further with the loss on magnitudes; the mean of all four is fast.
# 5. fast gets a guide, which knows voices, and learns to divide the rest. The guide is the vocals
#    network in 2STEMS, the folder or archive that Deezer publishes, or else the published model
#    spleeter-vocals.
# 6. A branch for the lowest bins, trained alone.
# 7. The same, with turned, widened and saturated stems and stronger equalisers.
# 8. The weights that 5 trained move back by two thirds. Then two networks are trained separately
#    with all their weights, by small steps and with the sounds of 7; their mean is
#    guided.safetensors.
#
# 1, 2 and 4 run on a CPU, four to five hours of two cores; 3 needs a GPU, five to ten minutes of
# a large one. 5 to 8 run on a CPU, or with ACCELERATOR=gpu on a GPU, for MINUTES each (120), with
# the learning rate annealed at the end. Completed runs in FOLDER are skipped, and an interrupted
# run is resumed: start the script again, once no unetsep train of it is running.
set -eu
[ $# -eq 4 ] || [ $# -eq 5 ] || {
    echo "usage: $0 MUSDB18-7 SONGS POOLS FOLDER [2STEMS]" >&2
    exit 2
}
musdb=$1 songs=$2 pools=$3 folder=$4 two_stems=${5-}
here=$(dirname "$0")
. "$here/trainings.sh"
mild="--varispeed 0.08 --eq-db 2 --second-share vocals=0.2,drums=0.1,other=0.4"
strong="--varispeed 0.12 --eq-db 4 --second-share vocals=0.3,drums=0.1,other=0.5"
cpu="--accelerator cpu --threads 1 --workers 0"
gpu="--accelerator gpu --resident"

start() { # RUN MACHINE OPTIONS...
    run=$folder/$1 machine=$2
    shift 2
    [ -e "$run/done" ] && return
    case " $* " in *" --max-minutes "*) limit="--max-minutes ${MINUTES:-120}" ;; *) limit= ;; esac
    if resumable "$run"; then
        set -- --resume $limit
    else
        set -- --schedule plateau "$@"
    fi
    begin "$run" "$@" --musdb-root "$musdb" --songs "$songs" --pools "$pools" $machine
}

train() { # RUN MACHINE OPTIONS...
    start "$@"
    finish
}

average() { # OUTPUT WEIGHTS...
    [ -e "$1" ] || unetsep average -o "$@"
}

branch() { # RUN FIRST-WEIGHTS SEED STEPS VALID-EVERY OPTIONS...
    run=$1 first=$2 seed=$3 steps=$4 every=$5
    shift 5
    start "$run" "$cpu" --loss mse --init-from "$first" --seed "$seed" --max-steps "$steps" \
        --valid-every "$every" --ema-decay 0.998 --muon-size 0.4 --precision fp32 "$@"
}

varied() { # RUN MACHINE LOSS FIRST-WEIGHTS SEED OPTIONS...
    run=$1 machine=$2 loss=$3 first=$4 seed=$5
    shift 5
    train "$run" "$machine" --loss "$loss" --init-from "$first" --seed "$seed" --held-out 0 \
        $strong --coherent-varispeed 0.25 \
        --leave-out everything-is-free-caesium=vocals,other \
        --leave-out big-stone-culture-fragile-thoughts=vocals \
        --leave-out vocals/producerspace-06 \
        --leave-out "St Vitus - Word Gets Around=drums" "$@"
}

train first "$cpu" --loss mse --network small --optimizer adamw --seed 0 --max-steps 5000 \
    --valid-every 200 --ema-decay 0.998 --precision fp32
branch second "$folder/first/best-mse.safetensors" 6 1600 200 --network small $mild
finish
branch start "$folder/second/best-mse.safetensors" 11 800 100 --network mixing $mild
finish
weights=$folder/start/best-mse.safetensors
for round in 1 2 3 4; do
    branch "mild-$round" "$weights" $((29 + 2 * round)) 400 400 $mild
    branch "strong-$round" "$weights" $((30 + 2 * round)) 400 400 $strong
    finish
    weights=$folder/round-$round.safetensors
    average "$weights" \
        "$folder/mild-$round/best-mse.safetensors" "$folder/strong-$round/best-mse.safetensors"
done

varied long "$gpu" mse "$weights" 100 --max-steps 8019 --valid-every 500 --ema-decay 0.999 \
    --muon-size 0.4 --batch-size 16 --coherent-share 0.5 --precision fp32
long=$folder/long/best-mse.safetensors
for seed in 202 203 204; do
    varied "magnitude-$seed" "$cpu" mag_mse "$long" $seed --max-steps 400 --valid-every 400 \
        --ema-decay 0.99 --muon-size 0.2 --coherent-share 0.5 --precision fp32
done
average "$folder/fast.safetensors" "$long" "$folder/magnitude-202/best-mag_mse.safetensors" \
    "$folder/magnitude-203/best-mag_mse.safetensors" "$folder/magnitude-204/best-mag_mse.safetensors"

guide=spleeter-vocals
if [ -n "$two_stems" ]; then
    guide=$folder/spleeter-vocals.safetensors
    [ -e "$guide" ] || python "$here/guided.py" guide "$two_stems" "$guide"
fi
joined=$folder/joined.safetensors
[ -e "$joined" ] || python "$here/guided.py" join "$folder/fast.safetensors" "$guide" "$joined"
machine=$cpu
[ "${ACCELERATOR:-cpu}" = cpu ] || machine=$gpu
two_songs="--leave-out everything-is-free-potassium \
    --leave-out how-to-kill-a-conversation-heartonmythumb"
beside="--max-steps 1000000 --max-minutes ${MINUTES:-120} --watched 14 --batch-size 8 \
    --coherent-share 0.7 --coherent-gain-db 2 --precision auto $two_songs"
sounds="--stereo-share 0.5 --drive-share 0.5 --eq-db 8 --varispeed 0.14 --ema-decay 0.998"
varied rest "$machine" mse "$joined" 300 --valid-every 400 --ema-decay 0.999 --muon-size 0.2 $beside
varied low "$machine" mse "$folder/rest/best-mse.safetensors" 400 --low-band 0-127 \
    --valid-every 300 --ema-decay 0.995 --muon-size 0.8 $beside
varied sounds "$machine" mse "$folder/low/best-mse.safetensors" 600 --low-band 0-127 \
    --valid-every 300 --muon-size 0.8 $beside $sounds
start=$folder/blended.safetensors
[ -e "$start" ] ||
    python "$here/guided.py" blend "$folder/sounds/best-mse.safetensors" "$joined" "$start"
for seed in 703 804; do
    varied "whole-$seed" "$machine" mse "$start" $seed \
        --valid-every 300 --muon-size 0.2 $beside $sounds --ema-decay 0.999
done
average "$folder/guided.safetensors" \
    "$folder/whole-703/best-mse.safetensors" "$folder/whole-804/best-mse.safetensors"
