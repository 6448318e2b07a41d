#!/usr/bin/env bash
# One host with any number of GPUs: one process sees them all, so there is
# nothing to launch; this checks the host first and starts main.
#
#   tools/launch/gpu_host.sh \
#     --config configs/jft_resnet_large_batch.py:path=DIR --workdir DIR
#
# Environment:
#   PYTHON                with requirements-gpu.txt installed; .venv/bin/python
#   CUDA_VISIBLE_DEVICES  a part of the GPUs, such as 0,1,2,3
set -euo pipefail

# In a checkout `main`, of an installed package `bvl train`.
program='-m big_vision_like train'
checkout=$(dirname "${BASH_SOURCE[0]}")/../..
if [[ -f $checkout/main.py ]]; then
  cd "$checkout"
  PYTHON=${PYTHON:-.venv/bin/python}
  program='-m main'
fi
PYTHON=${PYTHON:-python3}

if (($# == 0)); then
  echo "error: main's arguments are missing: --config ... --workdir ..." >&2
  exit 2
fi
if ! command -v "$PYTHON" >/dev/null; then
  echo "error: PYTHON=$PYTHON does not exist; see requirements-gpu.txt" >&2
  exit 2
fi
if ! command -v nvidia-smi >/dev/null; then
  echo 'error: no nvidia-smi: the NVIDIA driver is not installed' >&2
  exit 2
fi
nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader

# --num_processes=1 turns the detection of SLURM and Open MPI off.
# shellcheck disable=SC2086  # words of a command
exec "$PYTHON" $program "$@" --config.device=gpu --num_processes=1
