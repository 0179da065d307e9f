"""A cloud for tests: installed as `gcloud` on the PATH, it records what it is told and plays a scripted answer.

Its folder ($FAKE_CLOUD) holds `script.json` and, made by itself, `calls.jsonl` and `world.json`. The script:

    hosts    workers of a slice
    creates  answers to `create`, one a call, the last for all further ones: ok, quota, capacity or lost (it worked, but
             the answer did not arrive)
    slices   one per slice that is made, the last for all further ones:
      describe  states, one a call once the slice is made, the last for all further ones; "" for an error
      answer    workers that answer to ssh (default: all)
      runs      probes for which the job runs (default 2)
      codes     exit codes of the job (default: all 0)
      setup     exit codes of the setup (default: all 0)
    deletes  answers to `delete`: ok, fail; the last for all further ones
"""

import json
import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_CLOUD"])
WORLD = FOLDER / "world.json"


def main(argv):
    with (FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps(argv) + "\n")
    script = json.loads((FOLDER / "script.json").read_text())
    fresh = {"creates": 0, "deletes": 0, "slices": 0, "slice": None}
    world = json.loads(WORLD.read_text()) if WORLD.exists() else fresh
    try:
        return answer(argv, script, world)
    finally:
        WORLD.write_text(json.dumps(world))


def answer(argv, script, world):
    if argv[0] == "storage":
        return 0
    verb = argv[3] if argv[2] != "tpu-vm" else "ssh"
    if verb == "create":
        return create(script, world)
    if world["slice"] is None:
        return fail("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    slice = at(script["slices"], world["slices"] - 1)
    if verb == "describe":
        state = at(slice["describe"], world["slice"]["described"])
        world["slice"]["described"] += 1
        print(state)
        return 0 if state else fail("ERROR: (gcloud) UNAVAILABLE: try again")
    if verb == "delete":
        world["deletes"] += 1
        if at(script.get("deletes", ["ok"]), world["deletes"] - 1) == "fail":
            return fail("ERROR: (gcloud) INTERNAL: the operation failed")
        world["slice"] = None
        return 0
    return ssh(argv, script["hosts"], slice, world["slice"])


def create(script, world):
    told = at(script.get("creates", ["ok"]), world["creates"])
    world["creates"] += 1
    if told == "quota":
        return fail("ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded. Limit: 0 in zone z.")
    if told == "capacity":
        return fail("ERROR: (gcloud) There is no more capacity in the zone")
    if world["slice"] is not None:
        return fail("ERROR: (gcloud) ALREADY_EXISTS: Requested entity already exists")
    world["slices"] += 1
    world["slice"] = {"described": 0, "workers": {}, "probes": 0}
    return fail("ERROR: (gcloud) connection reset") if told == "lost" else 0


def ssh(argv, hosts, slice, now):
    command = next(a for a in argv if a.startswith("--command="))
    reached = slice.get("answer", list(range(hosts)))
    for number in reached:
        worker = now["workers"].setdefault(str(number), "fresh")
        setup = slice.get("setup", [0] * hosts)[number]
        if "setup_worker.sh" in command and worker == "fresh":
            now["workers"][str(number)] = f"exited {setup}" if setup else "ready -"
        elif "run_worker.sh" in command and worker == "ready -":
            now["workers"][str(number)] = "running -"
        elif "kill -TERM" in command and worker == "running -":
            now["workers"][str(number)] = "exited 42"
        elif "evads-worker" in command and worker != "fresh":
            ran = now["probes"] > slice.get("runs", 2)
            if worker == "running -" and ran:
                now["workers"][str(number)] = f"exited {slice.get('codes', [0] * hosts)[number]}"
            print(f"evads-worker {number} {now['workers'][str(number)]} 1")
    if "evads-worker" in command and "running -" in now["workers"].values():
        now["probes"] += 1
    return 0 if len(reached) == hosts else fail("ERROR: (gcloud) ssh exited with 255 on a worker")


def at(answers, index):
    return answers[min(index, len(answers) - 1)]


def fail(message):
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
