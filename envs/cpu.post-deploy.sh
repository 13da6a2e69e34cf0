#!/usr/bin/env bash
# Snakemake runs this in the environment that conda made; the workflow says where its code lies.
set -euo pipefail
"$EMOPROBE_CODE/envs/install.sh" "$EMOPROBE_CODE/envs/cpu.txt"
