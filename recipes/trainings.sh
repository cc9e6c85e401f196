# What the scripts share that train: beginning runs, resuming them, waiting for them, ending them.

running=
# Ctrl-C and a signal to the whole group reach the trainings by themselves. `unetsep train` saves at
# the first signal and gives up at the second, so only a script that was told alone tells them: by a
# signal that finds nobody where the shells of `begin` were told, too.
trap 'wait; exit 130' INT
trap 'kill -s USR1 $running 2>/dev/null || :; wait; exit 143' TERM

resumable() { # RUN; what it left is removed if it broke off before it could be resumed
    [ -e "$1/last.ckpt" ] && return
    rm -f "$1"/best-*.safetensors
    false
}

begin() { # RUN OPTIONS...: of `unetsep train`, that `finish` waits for
    (
        run=$1
        shift
        trap 'kill $! || :; wait; exit 143' USR1
        unetsep train --run "$run" "$@" &
        wait $! && touch "$run/done"
    ) &
    running="$running $!"
}

finish() { # fails if a training did, once all have ended: nothing is left running
    failed=
    for each in $running; do wait "$each" || failed=yes; done
    running=
    [ -z "$failed" ]
}
