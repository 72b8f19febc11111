"""What bounds a task besides its role: the organisation's ceiling and the ticket's own files. In view, tools, guard."""

from __future__ import annotations

from tests.e2e.conftest import House

TICKET = "---\nfiles: [src/app.py, docs/]\n---\n# Greet politely\n\nThe greeting should say please.\n"
LISTING = "find . -path ./.git -prune -o -type f -print | sort >> src/app.py"


def _shown(house: House, shell: str = LISTING) -> set[str]:
    """What the agent's own processes found in the workspace, as its change tells."""
    done = house.change(shell)
    assert done.code == 3, done.err
    found = house.git("show", f"{done.json['head_commit']}:src/app.py", repo=house.repo)
    return {line for line in found.splitlines() if line.startswith("./")}


def test_a_ticket_that_names_files_is_limited_to_them(house: House) -> None:
    house.commit({"src/other.py": "x = 1\n", "docs/a.md": "a\n"})
    assert _shown(house) >= {"./src/app.py", "./src/other.py", "./tests/test_app.py"}
    house.ticket(TICKET)
    path = str(house.folder / "ticket.md")
    done = house.run("--agent", "command", "--", "sh", "-c", LISTING, ticket=path)
    assert done.code == 3, done.err
    found = house.git("show", f"{done.json['head_commit']}:src/app.py").splitlines()
    assert [line for line in found if line.startswith("./")] == ["./src/app.py"]


def test_a_change_outside_of_the_tickets_files_is_refused(house: House) -> None:
    house.ticket(TICKET)
    path = str(house.folder / "ticket.md")
    shell = "echo 'x = 1' >> src/app.py; echo 'x = 2' > src/more.py; true"
    done = house.run("--agent", "command", "--", "sh", "-c", shell, ticket=path)
    changed = done.json["changed_files"]
    assert done.code == 4 or changed == ["src/app.py"], done.json["findings"]
    assert "src/more.py" not in changed or done.json["verdict"] == "deny"


def test_files_that_cannot_be_read_start_nothing(house: House) -> None:
    house.ticket(TICKET.replace("docs/", "../docs"))
    done = house.run("--agent", "command", "--", "sh", "-c", LISTING, ticket=str(house.folder / "ticket.md"))
    assert done.code == 2
    assert "ticket.md:2" in done.out + done.err, done.out
    assert house.vestibule("runs", "--json").json["runs"] == []
    assert not house.git("branch", "--list", "vestibule/*")


def test_the_organisations_ceiling_holds_over_every_role(house: House) -> None:
    house.operate("scope: {read: ['src/**'], write: ['src/app.py']}\n")
    assert _shown(house) == {"./src/app.py"}
    done = house.change("echo 'x = 2' > src/more.py; echo 'x = 1' >> src/app.py; true")
    assert done.code == 4 or done.json["changed_files"] == ["src/app.py"], done.json["findings"]


def test_check_holds_every_change_to_the_organisations_ceiling(house: House) -> None:
    base = house.git("rev-parse", "HEAD")
    head = house.commit({"src/app.py": "x = 3\n"})
    arguments = ("check", "--repo", str(house.repo), "--base", base, "--head", head, "--json")
    assert house.vestibule(*arguments).code != 4
    house.operate("scope: {read: ['src/**'], write: ['docs/**']}\n")
    done = house.vestibule(*arguments)
    assert done.code == 4
    assert "change.scope" in {item["rule"] for item in done.json["findings"]}


def test_check_with_the_shipped_role_is_held_to_it_too(house: House) -> None:
    house.git("rm", "-rq", ".vestibule")
    base = house.commit({"src/app.py": "x = 2\n"})
    head = house.commit({"src/app.py": "x = 3\n"})
    arguments = ("check", "--repo", str(house.repo), "--base", base, "--head", head, "--json")
    assert house.vestibule(*arguments).code != 4
    house.operate("scope: {read: ['src/**'], write: ['docs/**']}\n")
    done = house.vestibule(*arguments)
    assert done.code == 4
    assert "change.scope" in {item["rule"] for item in done.json["findings"]}
