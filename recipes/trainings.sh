# Functions of the scripts that train: to start, resume, wait for and end runs.

running=
# Ctrl-C and a signal to the whole group reach the trainings directly. `unetsep train` saves at the
# first signal and gives up at the second, so the script forwards only a signal that it got alone: as
# USR1, which reaches no process if the shells of `begin` got the signal, too.
trap 'wait; exit 130' INT
trap 'kill -s USR1 $running 2>/dev/null || :; wait; exit 143' TERM

resumable() { # RUN; removes the weights of one that was interrupted before its first checkpoint
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

finish() { # waits until all trainings have ended; fails if one of them did
    failed=
    for each in $running; do wait "$each" || failed=yes; done
    running=
    [ -z "$failed" ]
}
