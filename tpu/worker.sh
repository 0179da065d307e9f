# What the scripts of one worker share; sourced.
# shellcheck shell=bash

state=${EVADS_STATE:-$HOME/.evads}
mkdir -p "$state"

metadata() { # name
  curl --silent --fail --max-time 10 -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

worker_number() { # GKE numbers its pods, a TPU VM asks its metadata
  if [[ -n ${JOB_COMPLETION_INDEX-} ]]; then echo "$JOB_COMPLETION_INDEX"; else metadata agent-worker-number; fi
}

report() { # phase code: the launcher reads this line, and its age is the heartbeat
  echo "${number:?} $1 $2" >"$state/status.tmp" && mv "$state/status.tmp" "$state/status"
}

heartbeat() { # pid: keeps the status young while a process lives
  while kill -0 "$1" 2>/dev/null; do
    touch "$state/status"
    sleep "${EVADS_HEARTBEAT:-20}"
  done
}

objects() { # get gs://… FILE, put FILE gs://…: needs nothing but a Python
  timeout 120 python3 tpu/objects.py "$@"
}

as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }
