#!/usr/bin/env bash
# Makes one worker ready to run; called in the unpacked code: setup_worker.sh gs://BUCKET/FOLDER
#
# Python 3.11 (most TPU images carry 3.10, for which pip would pick an old jax without a word) and the locked packages
# with their libtpu and the client for buckets. Ends in the status `ready`, or `exited CODE` with the reason as last line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tpu/worker.sh
exec 9>"$state/lock"
flock -n 9 || exit 0 # under way
number=$(worker_number)

ended() { # where it failed: the log goes to the bucket; a pod has none, what it says is kept by its cluster
  code=$?
  [[ $code == 0 ]] && return
  if [[ -f setup.log ]]; then objects put setup.log "$1/logs/setup-worker-$number.log" || true; fi
  report exited "$code"
}
trap 'ended "$1"' EXIT
report setup -
heartbeat $$ 9>&- &

install() { # packages; a machine that was just booted may be busy with its own updates
  as_root apt-get update --quiet && as_root apt-get install --yes --quiet -o DPkg::Lock::Timeout=600 "$@"
}

python=$(command -v python3.11 || true)
if [[ -z $python ]]; then
  python3 -m pip --version >/dev/null 2>&1 || install python3-pip
  # Without the variable, Ubuntu 24.04 keeps pip away from its Python; an older pip does not know it.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user 'uv<1'
  python3 -m uv python install --quiet 3.11
  python=$(python3 -m uv python find 3.11)
fi
[[ -x .venv/bin/python ]] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/tpu.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
.venv/bin/python tpu/check_versions.py requirements/tpu.txt

as_root rm -f /tmp/libtpu_lockfile # of a process that was killed: no other may use the chips while it lies there
report ready -
