#!/usr/bin/env bash
# Runs a config on a TPU slice and gives the slice back: tpu/launch.sh --help, docs/tpu.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -m tpu.launch "$@"
