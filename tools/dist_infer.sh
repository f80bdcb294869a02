#!/usr/bin/env bash
# Predict with several processes, a GPU each (without a GPU: on CPUs).
#
#     tools/dist_infer.sh CONFIG CHECKPOINT GPUS INPUTS... --json FILE [flags]
#
# The same command again continues after an interruption, with any GPUS.
#
# On every one of several machines: NNODES, NODE_RANK and MASTER_ADDR (PORT).
# RENDEZVOUS_SECONDS (600): how long they wait for each other. LOCAL_ADDR: the
# address of this machine, if not that on the route to MASTER_ADDR.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" "$tools/launch.py" "$3" \
    "$tools/infer.py" "$1" "$2" --launcher pytorch "${@:4}"
