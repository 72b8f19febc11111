"""A system call that no ordinary program makes is refused, and the log of the run says so."""

from __future__ import annotations

from tests.e2e.conftest import House


def test_a_refused_system_call_is_in_the_log_and_counted(house: House) -> None:
    shell = "unshare -U true; unshare -U true; echo 'print(1)' >> src/app.py"
    done = house.change(shell)
    assert done.code == 3, done.err
    told = [event for event in done.json["events"] if event["action"] == "host.call"]
    assert [(event["resource"], event["verdict"], event["details"]["count"]) for event in told] == [
        ("unshare", "deny", 2)
    ]
    assert done.json["decisions"]["deny"] == 1
    assert house.vestibule("audit", "verify", "--json").json["ok"]
