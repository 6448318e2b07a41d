#!/usr/bin/env bash
# GPU nodes under SLURM: one process a node, which sees all GPUs of its node.
#
#   sbatch --nodes=4 --time=24:00:00 tools/launch/slurm.sh \
#     --config configs/jft_resnet_large_batch.py:path=DIR --workdir DIR
#
# Submit it in the repository, or anywhere with the package installed. Options
# of sbatch come before the script, arguments of main after it. The repository,
# the workdir and the data lie at the same paths on all nodes, the workdir on a
# shared file system.
#
# Two minutes before the time limit, and at a preemption, SLURM sends SIGTERM:
# the run saves its step and ends with 143, the job is queued again, and goes on
# from there.
#
# Environment:
#   PYTHON   with requirements-gpu.txt installed; .venv/bin/python
#   REQUEUE  0: do not queue the job again
#
#SBATCH --job-name=big_vision_like
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

# SLURM runs a copy of this script: the repository is where sbatch was called.
cd "${SLURM_SUBMIT_DIR:?is not set: start this script with sbatch}"
export PROGRAM='-m main' # in a checkout; of an installed package `bvl train`
if [[ -f main.py ]]; then
  export PYTHON=${PYTHON:-.venv/bin/python}
else
  export PYTHON=${PYTHON:-python3} PROGRAM='-m big_vision_like train'
  if ! "$PYTHON" -c 'import big_vision_like' 2>/dev/null; then
    echo "error: $PWD is not the repository, where to call sbatch, and" \
      "PYTHON=$PYTHON has no big_vision_like installed" >&2
    exit 2
  fi
fi

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
# Below the ephemeral ports, and different for jobs that share a node.
export COORDINATOR=$first:$((20000 + SLURM_JOB_ID % 10000))

trap 'true' TERM # bash waits for srun, which has the signal too
code=0
# shellcheck disable=SC2016  # the variables are those of each task
srun --wait=120 --kill-on-bad-exit=0 bash -c '
  exec "$PYTHON" $PROGRAM "$@" --config.device=gpu \
    --coordinator="$COORDINATOR" \
    --num_processes="$SLURM_NTASKS" \
    --process_id="$SLURM_PROCID"
' main "$@" || code=$?

if ((code == 143 || code == 75)) && [[ ${REQUEUE:-1} == 1 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
