"""A cloud for tests: installed as `gcloud` on the PATH, it records what it is told and plays a scripted answer.

It knows queued resources and Compute Engine's groups, and plays the same script for both. Its folder ($FAKE_CLOUD)
holds `script.json` and, made by itself, `calls.jsonl` and `world.json`. The script:

    hosts    workers of a slice
    creates  answers to `create`, one a call, the last for all further ones: ok, quota (a group is made all the same,
             and its machines are not), capacity or lost (it worked, but the answer did not arrive)
    slices   one per slice that is made, the last for all further ones:
      describe  states of a queued resource, one a call once the slice is made, the last for all further ones; "" for
                an error. What machines of a group are in such a state: GROUP
      answer    workers that answer to ssh (default: all)
      runs      probes for which the job runs (default 2)
      codes     exit codes of the job (default: all 0)
      setup     exit codes of the setup (default: all 0)
    deletes  answers to `delete`: ok, fail; the last for all further ones
"""

import fcntl
import json
import os
import sys

FOLDER = os.environ["FAKE_CLOUD"]
QUOTA = "Quota limit 'TPUV5s' has been exceeded. Limit: 0 in zone z."
# Status and action of the first machine of a group, and of the others.
GROUP = {
    "WAITING_FOR_RESOURCES": [("", "CREATING"), ("", "CREATING")],
    "PROVISIONING": [("RUNNING", "VERIFYING"), ("STAGING", "CREATING")],
    "ACTIVE": [("RUNNING", "NONE"), ("RUNNING", "NONE")],
    "SUSPENDING": [("RUNNING", "NONE"), ("STOPPING", "NONE")],
    "SUSPENDED": [("", "NONE"), ("", "NONE")],
    "FAILED": [("RUNNING", "NONE"), ("TERMINATED", "NONE")],
}


def main(argv):
    with opened("lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the machines of a group are spoken to side by side
        with opened("calls.jsonl", "a") as file:
            file.write(json.dumps(argv) + "\n")
        world = {"creates": 0, "deletes": 0, "slices": 0, "slice": None, "parts": []}
        if os.path.exists(os.path.join(FOLDER, "world.json")):
            with opened("world.json") as file:
                world |= json.load(file)
        with opened("script.json") as file:
            script = json.load(file)
        try:
            return answer(argv, script, world)
        finally:
            with opened("world.json", "w") as file:
                json.dump(world, file)


def opened(name, mode="r"):
    return open(os.path.join(FOLDER, name), mode)  # no pathlib: half of the time of a call would be its import


def answer(argv, script, world):
    if argv[0] == "storage":
        return 0
    if argv[1] in ("resource-policies", "instance-templates"):
        return part(argv, world)
    grouped = argv[1] != "tpus"
    verb = "ssh" if "ssh" in argv[1:4] else argv[3]
    if verb == "create":
        return create(argv, script, world)
    if verb == "list":
        return 0
    if world["slice"] is None:
        return fail("ERROR: (gcloud) The resource was not found" if grouped else "ERROR: (gcloud) NOT_FOUND: no such")
    slice = at(script["slices"], world["slices"] - 1)
    if verb == "describe" and grouped:
        print(json.dumps({"status": {"bulkInstanceOperation": creation(world["slice"])}}))
        return 0
    if verb in ("describe", "list-instances"):
        state = at(slice["describe"], world["slice"]["described"])
        world["slice"]["described"] += 1
        if not state:
            return fail("ERROR: (gcloud) UNAVAILABLE: try again")
        print(machines(state, script["hosts"], world["slice"]) if grouped else state)
        return 0
    if verb == "delete":
        world["deletes"] += 1
        if at(script.get("deletes", ["ok"]), world["deletes"] - 1) == "fail":
            return fail("ERROR: (gcloud) INTERNAL: the operation failed")
        world["slice"] = None
        return 0
    asked = [int(argv[2].rpartition("-")[2])] if grouped else list(range(script["hosts"]))
    return ssh(argv, script["hosts"], slice, world["slice"], asked)


def part(argv, world):
    """What a group is made from: a template, a policy."""
    made = argv[2] == "create"
    name = argv[4] if argv[3] == "workload-policy" else argv[3]
    if made and name in world["parts"]:
        return fail(f"ERROR: (gcloud) The resource '{name}' already exists")
    if not made and name not in world["parts"]:
        return fail(f"ERROR: (gcloud) The resource '{name}' was not found")
    if not made and world["slice"] is not None:
        return fail(f"ERROR: (gcloud) The resource '{name}' is already being used by a group")
    world["parts"] = [*world["parts"], name] if made else [other for other in world["parts"] if other != name]
    return 0


def machines(state, hosts, now):
    first, *others = GROUP["WAITING_FOR_RESOURCES" if now.get("refused") else state]
    return json.dumps(
        [
            {"name": f"evads-run-{number}", "instanceStatus": status, "currentAction": action}
            for number, (status, action) in enumerate([first, *others * (hosts - 1)])
        ]
    )


def creation(now):
    """How far a group is with all its machines together."""
    if not now.get("refused"):
        return {"inProgress": False}
    full = {"code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "message": "not enough resources"}
    errors = [full, {"code": "QUOTA_EXCEEDED", "message": QUOTA}]
    return {"inProgress": True, "lastProgressCheck": {"error": {"errors": errors}}}


def create(argv, script, world):
    told = at(script.get("creates", ["ok"]), world["creates"])
    world["creates"] += 1
    grouped = argv[1] != "tpus"
    if grouped:
        used = [option.partition("=")[2] for option in argv if option.startswith(("--template=", "--workload-policy="))]
        missing = [url for url in used if url.rpartition("/")[2] not in world["parts"]]
        if missing:
            return fail(f"ERROR: (gcloud) The resource '{missing[0]}' was not found")
    if told == "quota" and not grouped:
        return fail(f"ERROR: (gcloud) RESOURCE_EXHAUSTED: {QUOTA}")
    if told == "capacity":
        return fail("ERROR: (gcloud) There is no more capacity in the zone")
    if world["slice"] is not None:
        return fail("ERROR: (gcloud) ALREADY_EXISTS: Requested entity already exists")
    world["slices"] += 1
    world["slice"] = {"described": 0, "workers": {}, "probes": 0, "refused": told == "quota"}
    return fail("ERROR: (gcloud) connection reset") if told == "lost" else 0


def ssh(argv, hosts, slice, now, asked):
    command = next(a for a in argv if a.startswith("--command="))
    reached = [number for number in slice.get("answer", range(hosts)) if number in asked]
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
    if "evads-worker" in command and 0 in asked and "running -" in now["workers"].values():
        now["probes"] += 1
    return 0 if reached == asked else fail("ERROR: (gcloud) ssh exited with 255 on a worker")


def at(answers, index):
    return answers[min(index, len(answers) - 1)]


def fail(message):
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
