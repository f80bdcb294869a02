#!/usr/bin/env bash
# Evaluate with several processes, a GPU each (without a GPU: on CPUs).
#
#     tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
#
# On every one of several machines: NNODES, NODE_RANK and MASTER_ADDR (PORT).
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" \
    --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "${PORT:-29500}" \
    --nproc-per-node "$3" \
    "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
