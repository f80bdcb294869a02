#!/usr/bin/env bash
# Train on a Slurm cluster.
#
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of train.py]
#
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS, PORT.
# GRACE_SECONDS (120): how long before its time limit the run is signalled.
# A run that was preempted (status 75) is requeued and resumed. With
# --resume the same job may be submitted again and again, from the beginning.
# RENDEZVOUS_SECONDS (600): how long its processes wait for each other.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
fi
tools=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then per_node=$gpus; fi
# The first node of the job is the master: known only inside it.
export MASTER_PORT=${PORT:-29500}
submit() {
    # shellcheck disable=SC2086,SC2016
    srun \
        --partition "$1" \
        --job-name "$2" \
        --gres "gpu:$per_node" \
        --ntasks "$gpus" \
        --ntasks-per-node "$per_node" \
        --cpus-per-task "${CPUS_PER_TASK:-8}" \
        --signal "USR1@${GRACE_SECONDS:-120}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        bash -c '
            export MASTER_ADDR=$(scontrol show hostname "$SLURM_NODELIST" | head -n 1)
            exec "${PYTHON:-python}" "$@"' \
        bash "$tools/train.py" "$3" --launcher slurm "${@:4}"
}
status=0
submit "$@" || status=$?
while [ "$status" -eq 75 ]; do
    echo "slurm_train.sh: interrupted, queued again" >&2
    status=0
    submit "$@" --resume || status=$?
done
exit "$status"
