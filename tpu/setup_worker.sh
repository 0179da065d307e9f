#!/usr/bin/env bash
# Makes one worker ready to run; called in the unpacked code: setup_worker.sh gs://BUCKET/FOLDER | MOUNTED_FOLDER
#
# Python 3.11 (most TPU images carry 3.10, for which pip would pick an old jax without a word), the locked packages with
# their libtpu, and the bucket at ~/bucket. Ends in the status `ready`, or `exited CODE` with the reason as last line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tpu/worker.sh
exec 9>"$state/lock"
flock -n 9 || exit 0 # under way
number=$(worker_number)

ended() { # where it failed: the log goes to the bucket by another way than the mount, which may be what failed
  code=$?
  [[ $code == 0 ]] && return
  [[ $1 == gs://* ]] && gcloud storage cp --quiet setup.log "$1/logs/setup-worker-$number.log"
  report exited "$code"
}
trap 'ended "$1"' EXIT
report setup -
heartbeat $$ 9>&- &

install() { # packages; a machine that was just booted may be busy with its own updates
  as_root apt-get update --quiet && as_root apt-get install --yes --quiet -o DPkg::Lock::Timeout=600 "$@"
}

case $1 in
gs://*)
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    curl --silent --fail https://packages.cloud.google.com/apt/doc/apt-key.gpg | as_root tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" |
      as_root tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    install gcsfuse
  fi
  mkdir -p "$bucket"
  name=${1#gs://}
  folder=()
  if [[ $name == */* ]]; then folder=(--only-dir "${name#*/}"); fi
  mountpoint --quiet "$bucket" ||
    gcsfuse --implicit-dirs --rename-dir-limit 1000000 "${folder[@]}" "${name%%/*}" "$bucket"
  ;;
*) ln -sfn "$1" "$bucket" ;;
esac

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
