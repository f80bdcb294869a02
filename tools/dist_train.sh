#!/usr/bin/env bash
# Train with several processes, a GPU each (without a GPU: on CPUs, by gloo).
#
#     tools/dist_train.sh CONFIG GPUS [flags of train.py]
#
# On every one of several machines: NNODES, NODE_RANK and MASTER_ADDR (PORT).
# RENDEZVOUS_SECONDS (600): how long they wait for each other. LOCAL_ADDR: the
# address of this machine, if not that on the route to MASTER_ADDR.
# MAX_RESTARTS (0): how often all processes are restarted when one has
# failed; they resume from the latest checkpoint. At SIGTERM and SIGUSR1 they
# save and exit; torchrun waits GRACE_SECONDS (120) for that.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" "$tools/launch.py" "$2" \
    "$tools/train.py" "$1" --launcher pytorch "${@:3}"
