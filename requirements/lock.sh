#!/usr/bin/env bash
# Writes the lock files of this folder from the bounds in setup.py (needs `uv` on the PATH, and the network).
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # extras-flags... output
  local out=${!#}
  uv pip compile setup.py --python-version 3.11 --no-header --no-emit-index-url --no-annotate --quiet \
    "${@:1:$#-1}" --output-file "$out"
}
cd requirements && rm -f ./*.txt && cd ..
compile requirements/cpu.txt
compile --extra cuda --constraint requirements/cpu.txt requirements/cuda.txt
compile --extra test --constraint requirements/cpu.txt requirements/all-test.txt
# The job on a slice lives in a bucket; the client for it is the one that the tests use.
compile --extra tpu --extra gcs --constraint requirements/all-test.txt requirements/tpu.txt
# Only what the tests add: installed on top of any accelerator's lock.
grep -vxFf requirements/cpu.txt requirements/all-test.txt > requirements/test.txt
compile --extra test --extra peers --constraint requirements/all-test.txt requirements/peers.txt
# The CPU build carries a local label that no index lists; the plain version matches it.
sed -i 's/^\(torch==[0-9.]*\)+cpu$/\1/' requirements/peers.txt
rm requirements/all-test.txt
