#!/usr/bin/env bash
# Runs the job on one worker that is ready: run_worker.sh gs://BUCKET/FOLDER ATTEMPT HOSTS OPTIONS…
#
# Keeps the status young while the job lives, hands SIGTERM on to it, and leaves its exit code in the status: 0 done,
# 42 preempted after a checkpoint, anything else a bug. The log is copied to the bucket every few minutes and at the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
source tpu/worker.sh
exec 9>"$state/lock"
flock -n 9 || exit 0                                      # running
read -r number phase _ <"$state/status" && [[ $phase == ready ]] || exit 0 # ran, or never became ready
bucket=$1 attempt=$2 hosts=$3
shift 3

if [[ -n ${EVADS_HOURS-} ]]; then # where no launcher watches (GKE): the hours of all attempts together
  first=$bucket/.launch/began
  date +%s >"$state/began"
  if ! { objects put-new "$state/began" "$first" && objects get "$first" "$state/began"; }; then
    report exited 1
    exit 1
  fi
  left=$(awk -v began="$(cat "$state/began")" -v now="$(date +%s)" -v hours="$EVADS_HOURS" \
    'BEGIN { left = int(began + hours * 3600 - now); print (left > 0 ? left : 0) }')
  if [[ $left == 0 ]]; then
    echo 'the hours are spent'
    report exited 3
    exit 3
  fi
fi

log=$state/worker-$number.log
keep_log() { # one at a time: an older copy must not arrive after the last one
  (flock 8 && objects put "$log" "$bucket/logs/attempt-$attempt/worker-$number.log") 8>"$state/log.lock"
}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$bucket/cache/jax} # compiled once, also for later slices
job=(.venv/bin/python -m evads_jax.main "$@" "--workdir=$bucket/run")
if ((hosts > 1)); then job+=(--distributed); fi
if [[ -n ${left-} ]]; then job=(timeout --kill-after=120 "$left" "${job[@]}"); fi

"${job[@]}" >"$log" 2>&1 9>&- &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
echo $$ >"$state/pid"
report running -
heartbeat "$child" 9>&- &
(while kill -0 "$child" 2>/dev/null; do
  keep_log
  sleep 120
done) 9>&- &

while :; do # a signal ends `wait`, not the job
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || break
done
keep_log
report exited "$code"
exit "$code"
