#!/usr/bin/env bash
# Print the hardware of the model servers, which names their lock: envs/hardware.sh [CONFIG...]
#
# cuda where SLURM jobs of a configuration, or of a file that it names, ask for GPUs, or where this machine has one; else
# cpu. The files are searched as text, because no environment that reads YAML exists yet. `make HARDWARE=cuda` overrides.
set -euo pipefail
gpus='(gres["'\'']?[:=] *["'\'']?gpu)|(--gpus)'
files=("$@")
seen=" "
while ((${#files[@]})); do
    file=${files[0]}
    files=("${files[@]:1}")
    [[ -f $file && $seen != *" $file "* ]] || continue
    seen+="$file "
    text=$(sed 's/#.*//' "$file")
    if [[ $text =~ $gpus ]]; then
        echo cuda
        exit
    fi
    folder=.
    [[ $file != */* ]] || folder=${file%/*}
    while read -r name; do
        files+=("$folder/$name")
    done < <(grep -oE '[A-Za-z0-9_./-]+\.ya?ml' <<<"$text" || true)
done
if nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi
