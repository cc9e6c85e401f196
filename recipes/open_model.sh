#!/bin/sh
# Train the model open, on recordings under open licences alone:
#
#     sh recipes/open_model.sh MUSDB18-7 SONGS POOLS MIDI SAMPLE_SETS FOLDER
#
# 1. Recordings: what open_data.py links from SONGS and POOLS; songs and single stems rendered from
#    MIDI/songs (our freedoom and tannerhelland), drums from MIDI/drums (our groove-midi). Of
#    MUSDB18 the validation songs choose among weights, and no song is trained on.
# 2. A network with random weights beside the guide spleeter-vocals, whose states it sees.
# 3. Two networks are trained separately from there, by small steps and with more varied sounds; the
#    mean of all three is open.safetensors.
#
# Each run takes MINUTES (120) of a CPU core, or with ACCELERATOR=gpu of a GPU, with the learning
# rate annealed at the end. Existing files in FOLDER are kept, and an interrupted run is
# resumed: start the script again. SOUNDFONTS names the two soundfonts, which
# otherwise are those of Debian's fluid-soundfont-gm and musescore-general-soundfont-lossless.
set -eu
[ $# -eq 6 ] || {
    echo "usage: $0 MUSDB18-7 SONGS POOLS MIDI SAMPLE_SETS FOLDER" >&2
    exit 2
}
musdb=$1 songs=$2 pools=$3 midi=$4 samples=$5 folder=$6
here=$(dirname "$0") data=$folder/data
. "$here/trainings.sh"
sf2=/usr/share/sounds/sf2
fonts=${SOUNDFONTS:-$sf2/FluidR3_GM.sf2 $sf2/MuseScore_General_Full.sf2}
font_options=
for font in $fonts; do font_options="$font_options --soundfont $font"; done

make_folder() { # NAME: of a folder, which the function of that name makes, whole or not at all
    [ -e "$data/$1" ] && return
    rm -rf "$data/$1.part"
    "$1" "$data/$1.part"
    mv "$data/$1.part" "$data/$1"
}

rendered() { # OUTPUT: two takes of each song
    python "$here/midi_songs.py" "$midi/songs" $font_options --sampler "$samples" --takes 2 "$1"
}

sampled() { # OUTPUT: basses and others played by recorded notes
    python "$here/midi_pools.py" "$midi/songs" --sampler "$samples" --minutes 60 0 40 "$1"
}

drummed() { # OUTPUT: drummers' takes
    python "$here/midi_pools.py" "$midi/drums" $font_options --minutes 0 40 0 "$1"
}

mkdir -p "$data"
python "$here/open_data.py" "$musdb" "$songs" "$pools" "$data"
for name in rendered sampled drummed; do make_folder $name; done

machine="--accelerator cpu --threads 1 --workers 0"
[ "${ACCELERATOR:-cpu}" = cpu ] || machine="--accelerator gpu --resident"

on_data() { # OPTIONS...
    begin "$run" "$@" --musdb-root "$data/validation" \
        --songs "$data/songs" --songs "$data/rendered" \
        --pools "$data/pools" --pools "$data/sampled" --pools "$data/drummed" \
        --max-minutes "${MINUTES:-120}" $machine
    finish
}

train() { # RUN OPTIONS...
    run=$folder/$1
    shift
    [ -e "$run/done" ] && return
    if resumable "$run"; then
        on_data --resume
    else
        on_data --loss mse --held-out 0 \
            --leave-out everything-is-free-caesium=vocals,other --leave-out vocals/producerspace-06 \
            --artist-weights --varispeed 0.12 --coherent-varispeed 0.25 --eq-db 6 \
            --stereo-share 0.3 --drive-share 0.3 --reverb-share 0.1 --coherent-gain-db 4 \
            --second-share vocals=0.2,drums=0.1,other=0.4 \
            --schedule plateau --batch-size 8 --ema-decay 0.998 --precision auto \
            --max-steps 1000000 --watched 14 "$@"
    fi
}

train beside --network mixing --guide spleeter-vocals --guide-levels 5 --seed 1 \
    --muon-size 0.8 --coherent-share 0.4 --valid-every 600
for seed in 41 42; do
    train "varied-$seed" --init-from "$folder/beside/best-mse.safetensors" --seed "$seed" \
        --muon-size 0.2 --coherent-share 0.4 --valid-every 300 \
        --eq-db 8 --stereo-share 0.5 --drive-share 0.5
done
[ -e "$folder/open.safetensors" ] || unetsep average -o "$folder/open.safetensors" \
    "$folder/beside/best-mse.safetensors" \
    "$folder/varied-41/best-mse.safetensors" "$folder/varied-42/best-mse.safetensors"
