#!/usr/bin/env bash
# Startup script of every machine of a slice: a slice deletes itself when its time is over.
#
# It needs no launcher: a laptop that is closed, or a network that is gone, leaves no slice behind. The clock begins at
# the first boot. Of a queued resource worker 0 does it; of a group every machine, since it needs no number for that.
set -uo pipefail
attribute() {
  curl --silent --fail --max-time 10 -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/$1"
}
backend=$(attribute instance/attributes/evads-backend)
[[ $backend == mig || $(attribute instance/attributes/agent-worker-number) == 0 ]] || exit 0
name=$(attribute instance/attributes/evads-name)
seconds=$(attribute instance/attributes/evads-seconds)
zone=$(attribute instance/zone)
project=$(attribute project/project-id)
stamp=${EVADS_STAMP:-/var/lib/evads-began}
[[ -f $stamp ]] || date +%s >"$stamp"

case $backend in
mig) delete=(instance-groups managed delete "$name" "--project=$project" "--zone=${zone##*/}" --quiet) ;;
*) delete=(tpus queued-resources delete "$name" "--project=$project" "--zone=${zone##*/}" --force --quiet --async) ;;
esac

(
  while (($(date +%s) < $(cat "$stamp") + seconds)); do sleep "${EVADS_HEARTBEAT:-30}"; done
  until gcloud compute "${delete[@]}"; do sleep "${EVADS_HEARTBEAT:-30}"; done
) >/dev/null 2>&1 </dev/null &
