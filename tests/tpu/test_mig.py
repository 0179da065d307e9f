"""What a listing of a group's machines means for the slice that they are."""

import json
import subprocess

import pytest

from tests.tpu.test_plan import request
from tpu import mig
from tpu.gcloud import Gcloud
from tpu.supervise import Seen

RUNS, STARTS = ("RUNNING", "NONE"), ("STAGING", "CREATING")
QUOTA = {"errors": [{"code": "QUOTA_EXCEEDED", "message": "limit 0"}]}


def read(machines, group=None, **more):
    """What is read of a slice of two machines."""
    names = [f"evads-run-{number}" for number in range(len(machines))]
    told = [
        {"name": name, "instanceStatus": status, "currentAction": action} | more
        for name, (status, action) in zip(names, machines, strict=True)
    ]
    seen, named, trouble = mig.read(
        request("--slice=v5p:2x2x2", "--backend=mig"), [json.dumps(told), json.dumps(group)]
    )
    assert named == names
    return seen, trouble


@pytest.mark.parametrize(
    ("machines", "seen"),
    [
        ([RUNS, RUNS], Seen.ACTIVE),
        ([RUNS, ("RUNNING", "VERIFYING")], Seen.ACTIVE),
        ([], Seen.WAITING),
        ([RUNS], Seen.WAITING),
        ([RUNS, STARTS], Seen.WAITING),
        ([(None, "CREATING"), (None, "CREATING")], Seen.WAITING),
        ([("PENDING", "CREATING"), ("PENDING", "CREATING")], Seen.WAITING),
        ([RUNS, ("STOPPING", "NONE")], Seen.GONE),
        ([RUNS, ("TERMINATED", "NONE")], Seen.GONE),
        ([RUNS, (None, "NONE")], Seen.GONE),
        ([(None, "RECREATING"), (None, "RECREATING")], Seen.GONE),
        ([RUNS, ("STOPPING", "DELETING")], Seen.GONE),
        ([("RUNNING", "DELETING"), ("STOPPING", "DELETING")], Seen.DELETING),
    ],
)
def test_a_slice_is_there_when_all_its_machines_run_and_gone_when_one_is_lost(machines, seen):
    assert read(machines) == (seen, "")


def test_machines_that_do_not_exist_are_waited_for_while_the_group_creates_them():
    none_yet = [(None, "NONE"), (None, "NONE")]
    assert read(none_yet, {"status": {"bulkInstanceOperation": {"inProgress": True}}})[0] is Seen.WAITING
    assert read(none_yet, {"status": {"bulkInstanceOperation": {"inProgress": False}}})[0] is Seen.GONE


def test_what_hinders_the_machines_is_told():
    waits = [(None, "CREATING"), (None, "CREATING")]
    creation = {"inProgress": True, "lastProgressCheck": {"error": QUOTA}}
    assert read(waits, {"status": {"bulkInstanceOperation": creation}})[1] == "QUOTA_EXCEEDED: limit 0"
    assert read(waits[:1], {"status": None}, lastAttempt={"errors": QUOTA})[1] == "QUOTA_EXCEEDED: limit 0"
    assert read(waits, {}, lastAttempt=None)[1] == ""


def test_a_quota_that_one_slice_lacked_is_no_reason_not_to_ask_for_the_next(monkeypatch):
    machines = [{"name": "evads-run-0", "currentAction": "CREATING", "lastAttempt": {"errors": QUOTA}}]
    gcloud = Gcloud(request("--slice=v6e:2x4", "--backend=mig"), "code.tgz", print)
    answer = subprocess.CompletedProcess([], 0, json.dumps(machines), "")
    empty = subprocess.CompletedProcess([], 0, "null", "")
    monkeypatch.setattr(gcloud, "_run", lambda command, _: answer if "list-instances" in command else empty)
    assert (gcloud.slice(), gcloud.refused) == (Seen.WAITING, "QUOTA_EXCEEDED: limit 0")
    gcloud.do("delete", 1)
    assert gcloud.refused == ""


def test_an_answer_that_cannot_be_read_says_nothing():
    assert mig.read(request("--slice=v6e:2x4", "--backend=mig"), ["", ""]) == (Seen.UNKNOWN, [], "")


@pytest.mark.parametrize("option", ["--hours=3", "--on-demand", "--slice=v6e:2x2", "--name=evads-other"])
def test_a_template_that_was_left_over_is_used_again_only_if_it_is_the_same(option):
    given = ["--slice=v6e:2x4", "--backend=mig"]
    assert mig._template(request(*given)) == mig._template(request(*given, "--zone=us-east5-b", "--attempts=3"))
    assert mig._template(request(*given)) != mig._template(request(*given, option))


def test_names_made_from_the_longest_name_are_not_too_long_for_the_service():
    name = "evads-" + "a" * 42
    made = request("--slice=v6e:16x16", "--backend=mig", f"--name={name}")
    assert len(mig._template(made)) <= 63
    assert len(mig._policy(made)) <= 63
