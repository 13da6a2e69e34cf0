# Ask the pool to make one sample, trajectory, activation folder, direction or score, and wait until it is there.
#
# Usage: source ask_pool.sh KIND EXPERIMENT VARIANT SAMPLE, with these in the environment:
#   EMOPROBE_POOL       the file with the pool's address
#   EMOPROBE_PLAN       the folder with the resolved config of every experiment
#   EMOPROBE_RESULTS    the folder of the experiments' folders
#   EMOPROBE_DIRECTORY  where the workflow was started, which relative paths in a config start from
#   EMOPROBE_OWNER      the process number of the workflow
#   EMOPROBE_PYTHON     the interpreter that starts a pool
#
# This is all that a trajectory costs besides the model server and Snakemake. It is sourced by the shell that Snakemake
# starts for the job anyway and uses nothing but bash's own commands: an interpreter of its own would cost several times
# as much. Only where no pool answers, one is started, in Python.

emoprobe_ask() {
    local port token answer=""
    { read -r port token <"$EMOPROBE_POOL" && exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 2
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$token" "$EMOPROBE_PLAN" "$EMOPROBE_RESULTS" \
        "$EMOPROBE_DIRECTORY" "$EMOPROBE_OWNER" "$1" "$2" "$3" "$4" >&3 2>/dev/null || return 2
    IFS= read -r -d '' answer <&3 || true # the pool ends its answer by closing
    exec 3>&-
    case $answer in
        ok*) return 0 ;;
        "") return 2 ;; # the pool went away
    esac
    # On a full disk the log takes no text; the terminal does.
    printf '%s' "$answer" >&2 2>/dev/null || printf '%s' "$answer"
    return 1
}

# A workflow that has been killed may stay as a zombie until its own parent looks.
emoprobe_owner_lives() {
    local key value
    while read -r key value; do
        [ "$key" = State: ] && { [[ $value != [ZX]* ]]; return; }
    done <"/proc/$EMOPROBE_OWNER/status"
    return 1
} 2>/dev/null

# One start, whoever asks first: the others wait at the lock and find the pool there. Nobody starts one for a workflow
# that is gone.
emoprobe_start() {
    flock 4
    emoprobe_owner_lives || return 1
    local port token
    { read -r port token <"$EMOPROBE_POOL" && exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null && exec 3>&- && return 0
    "$EMOPROBE_PYTHON" -m server.pool.start "$EMOPROBE_POOL" "$EMOPROBE_PLAN" "$EMOPROBE_RESULTS" \
        "$EMOPROBE_DIRECTORY" "$EMOPROBE_OWNER" 4>&-
}

for _ in 1 2 3 4; do
    emoprobe_ask "$@" && exit 0 || emoprobe_status=$?
    [ "$emoprobe_status" = 1 ] && exit 1
    [ -d "${EMOPROBE_POOL%/*}" ] || mkdir -p -m 700 "${EMOPROBE_POOL%/*}"
    emoprobe_start 4>"$EMOPROBE_POOL.lock" || exit 1
done
printf 'The pool went away four times; see pool.log in the folder of the logs.\n' >&2
exit 1
