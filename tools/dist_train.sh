#!/usr/bin/env bash
# Train with several processes, a GPU each (without a GPU: on CPUs, by gloo).
#
#     tools/dist_train.sh CONFIG GPUS [flags of train.py]
#
# On every one of several machines: NNODES, NODE_RANK and MASTER_ADDR (PORT).
# MAX_RESTARTS (0): how often torchrun starts all processes again when one has
# died; they resume from the latest checkpoint. At SIGTERM and SIGUSR1 they
# save and exit; torchrun waits GRACE_SECONDS (120) for that.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
# As torchrun's flags of that name, which older versions do not have.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
export PET_SHUTDOWN_TIMEOUT=${GRACE_SECONDS:-120}
# Processes that are started again must not find the addresses of the dead in
# the store that torchrun shares with all of them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
place=(--rdzv-backend c10d --rdzv-id "transxnet-${PORT:-29500}"
    --rdzv-endpoint "${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}")
if [ "${NODE_RANK:-0}" = 0 ]; then
    place+=(--rdzv-conf is_host=1)
else
    place+=(--rdzv-conf is_host=0)
fi
# The name of a single machine need not be known to anyone.
if [ "${NNODES:-1}" = 1 ]; then place+=(--local-addr 127.0.0.1); fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" \
    "${place[@]}" \
    --nproc-per-node "$2" \
    --max-restarts "${MAX_RESTARTS:-0}" \
    "$tools/train.py" "$1" --launcher pytorch "${@:3}"
