#!/usr/bin/env bash
# A Cloud TPU slice, from a machine with gcloud: one process on every host.
#
#   export TPU_NAME=big-vision ZONE=europe-west4-b
#   tools/launch/tpu_pod.sh create           # ACCELERATOR_TYPE, RUNTIME_VERSION
#   tools/launch/tpu_pod.sh install          # the commit HEAD and its libraries
#   tools/launch/tpu_pod.sh run \
#     --config configs/jft_resnet_large_batch.py:path=/mnt/shared/jft \
#     --workdir /mnt/shared/runs/jft
#   tools/launch/tpu_pod.sh log              # follows host 0; ends with Ctrl-C
#   tools/launch/tpu_pod.sh status           # last lines of every host
#   tools/launch/tpu_pod.sh stop             # saves the step, then ends
#   tools/launch/tpu_pod.sh delete
#
# `run` starts the processes in the background: they live on without this
# terminal. The workdir is on a file system that all hosts mount at that path.
#
# Environment:
#   TPU_NAME, ZONE    of the slice; PROJECT if it is not gcloud's default
#   ACCELERATOR_TYPE  for create; v5litepod-32
#   RUNTIME_VERSION   for create; v2-alpha-tpuv5-lite
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -f main.py ]] || {
  echo 'error: it copies the repository to the hosts: call it in a checkout' >&2
  exit 2
}
readonly FOLDER=big_vision_like # in the home folder of every host

fail() {
  echo "error: $1" >&2
  exit 2
}

# tpu VERB ARGUMENTS: gcloud for this slice
tpu() {
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE" \
    ${PROJECT:+--project="$PROJECT"}
}

# on WORKERS COMMAND: runs a command line on hosts, 'all' or a number
on() {
  tpu ssh "$TPU_NAME" --worker="$1" --command="$2"
}

create() {
  tpu create "$TPU_NAME" \
    --accelerator-type="${ACCELERATOR_TYPE:-v5litepod-32}" \
    --version="${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}"
}

install() {
  local archive
  archive=$(mktemp -d)/code.tar.gz
  git archive --format=tar.gz --output="$archive" HEAD
  tpu scp "$archive" "$TPU_NAME:code.tar.gz" --worker=all
  rm -r "$(dirname "$archive")"
  # uv brings a Python of its own: the images have an older one.
  on all "set -e
    mkdir -p $FOLDER
    tar -xzf code.tar.gz -C $FOLDER
    cd $FOLDER
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --allow-existing --python 3.12 .venv
    python3 -m uv pip install --quiet --python .venv/bin/python \
      -r requirements-tpu.txt"
}

run() {
  (($#)) || fail "main's arguments are missing: --config ... --workdir ..."
  local arguments
  arguments=$(printf '%q ' "$@")
  on all "set -e
    cd $FOLDER
    if [ -f run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; then
      echo \"error: \$(hostname) still runs process \$(cat run.pid)\" >&2
      exit 1
    fi
    nohup .venv/bin/python -m main $arguments --config.device=tpu \
      > run.log 2>&1 < /dev/null &
    echo \$! > run.pid"
}

# One signal is enough: the processes agree on the step to stop after.
stop() {
  on 0 "kill -TERM \$(cat $FOLDER/run.pid)"
}

command -v gcloud >/dev/null || fail 'gcloud is not installed'
[[ -n ${TPU_NAME:-} && -n ${ZONE:-} ]] || fail 'TPU_NAME and ZONE must be set'
action=${1:-}
shift || true
case $action in
  create) create ;;
  install) install ;;
  run) run "$@" ;;
  log) on 0 "tail -n 100 -f $FOLDER/run.log" ;;
  status) on all "hostname; tail -n 5 $FOLDER/run.log" ;;
  stop) stop ;;
  delete) tpu delete "$TPU_NAME" ;;
  *) fail "'$action' is not create, install, run, log, status, stop, delete" ;;
esac
