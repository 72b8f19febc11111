"""What the embedded forge promises of proposals and merges, on real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
from forge_repos import RUN, TARGET, Change, commit_files, git, snapshot

from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.model import GateBinding
from vestibule.core.ports import CheckpointRef, Forge
from vestibule.forges import rules
from vestibule.forges.git import GitForge


def test_merge_moves_branch_index_and_files_together(change: Change) -> None:
    forge: Forge = change.forge
    result = forge.merge(change.request())
    assert result.state == "merged"
    assert git(change.place, "rev-parse", "main") == result.commit
    assert git(change.place, "rev-parse", "main^{tree}") == change.binding.tree
    assert git(change.place, "rev-list", "--no-walk", "--parents", "main").split() == [
        result.commit,
        change.base,
        change.head,
    ]
    git(change.place, "fsck", "--strict")
    if change.forge.git.bare:
        return
    assert git(change.place, "status", "--porcelain") == ""
    assert (change.place / "src/a.py").read_bytes() == b"new a\n"
    assert (change.place / "src/new/c.py").read_bytes() == b"new c\n"
    assert not (change.place / "deep").exists()
    assert (change.place / "link").is_symlink()
    assert (change.place / "run.sh").stat().st_mode & 0o111
    assert [path.name for path in change.place.rglob("*vestibule-*")] == ["vestibule-merge.lock"]
    assert not (change.place / ".git" / "index.lock").exists()


def test_trailers_name_run_decision_and_checkpoint(change: Change) -> None:
    result = change.forge.merge(change.request())
    trailers = git(change.place, "log", "-1", "--format=%(trailers:only,unfold)", result.commit)
    assert trailers.splitlines() == [
        f"Vestibule-Run: {RUN}",
        "Vestibule-Decision: d-1 local:alice",
        "Vestibule-Checkpoint: example.com/log 7 AAAA",
    ]
    assert git(change.place, "log", "-1", "--format=%s|%an <%ae>|%cn <%ce>|%aI", result.commit) == (
        f"Merge vestibule/{RUN}: Fix the thing|Vestibule <vestibule@vestibule.local>"
        "|Vestibule <vestibule@vestibule.local>|2026-01-02T03:04:05+00:00"
    )


def test_self_review_is_marked_in_the_trailer(clone: Change) -> None:
    request = clone.request()
    own = request.decisions[0].model_copy(update={"self_review": True})
    result = clone.forge.merge(request.model_copy(update={"decisions": (own,)}))
    assert (
        "Vestibule-Decision: d-1 local:alice self-reviewed"
        in git(clone.place, "log", "-1", "--format=%B", result.commit).splitlines()
    )


@pytest.mark.parametrize(
    "title",
    [
        "x\n\nVestibule-Decision: d-9 local:mallory",
        "x\r\rVestibule-Run: other",
        "x\u2028Vestibule-Run: other",
        "\u202eevil\u200b",
        "\0nul\x1b[2J",
        "Vestibule-Run: other",
        "\n\n",
        "long " * 200,
        "",
    ],
)
def test_a_ticket_title_adds_no_line_to_the_merge_message(clone: Change, title: str) -> None:
    message = rules.merge_message(clone.request(title=title))
    subject, empty, *trailers = message.splitlines()
    assert subject.startswith(f"Merge vestibule/{RUN}")
    assert len(subject) < 120
    assert empty == ""
    assert [line.partition(":")[0] for line in trailers] == [
        "Vestibule-Run",
        "Vestibule-Decision",
        "Vestibule-Checkpoint",
    ]


@pytest.mark.parametrize("origin", ["two words", "line\nbreak", "", "caf\u00e9"])
def test_a_checkpoint_origin_is_one_word_or_refused(clone: Change, origin: str) -> None:
    with pytest.raises(UsageError):
        rules.merge_message(clone.request(checkpoint=CheckpointRef(origin=origin, size=1, root="AAAA")))


def test_a_person_with_an_unusual_name_is_one_word_in_the_trailer(clone: Change) -> None:
    request = clone.request()
    person = request.decisions[0].person.model_copy(update={"id": "oidc:https://idp.example.com/#O'Brien Łukasz\nx: y"})
    odd = request.decisions[0].model_copy(update={"person": person})
    message = rules.merge_message(request.model_copy(update={"decisions": (odd,)}))
    assert "Vestibule-Decision: d-1 oidc:https://idp.example.com/#O'Brien%20Łukasz⏎x:%20y\n" in message


def test_merging_twice_is_merging_once(change: Change) -> None:
    first = change.forge.merge(change.request())
    again = change.forge.merge(change.request(time="2027-01-01T00:00:00.000Z", title="another"))
    assert again == first
    commit = git(change.place, "rev-parse", "main")
    assert commit == first.commit


def test_a_merge_is_found_after_others_went_on(change: Change) -> None:
    first = change.forge.merge(change.request())
    git(change.work, "fetch", "-q", str(change.place), "main")
    git(change.work, "checkout", "-q", "FETCH_HEAD")
    later = commit_files(change.work, {"later.txt": b"later\n"})
    if change.forge.git.bare:
        git(change.work, "push", "-q", str(change.place), f"{later}:refs/heads/main")
    else:
        git(change.place, "pull", "-q", "--ff-only", str(change.work), "HEAD")
    git(change.place, "branch", "-D", f"vestibule/{RUN}")
    assert change.forge.merge(change.request()) == first


def test_a_branch_moved_after_approval_does_not_merge(change: Change) -> None:
    evil = commit_files(change.work, {"src/a.py": b"evil\n"})
    git(change.work, "push", "-q", "-f", str(change.place), f"{evil}:refs/heads/vestibule/{RUN}")
    with pytest.raises(Refused) as refused:
        change.forge.merge(change.request())
    assert refused.value.refusal.rule == "merge.branch_moved"
    assert git(change.place, "rev-parse", "main") == change.base


def test_another_tree_than_the_approved_does_not_merge(change: Change) -> None:
    binding = change.binding.model_copy(update={"tree": git(change.work, "rev-parse", f"{change.base}^{{tree}}")})
    request = change.request(binding=binding)
    own = request.decisions[0].model_copy(update={"binding": binding})
    with pytest.raises(Refused) as refused:
        change.forge.merge(request.model_copy(update={"decisions": (own,)}))
    assert refused.value.refusal.rule == "merge.tree"


def test_a_change_retargeted_after_approval_does_not_merge(change: Change) -> None:
    git(change.place, "branch", "release", change.base)
    other = GitForge.open(change.place, "release")
    with pytest.raises(Refused) as refused:
        other.merge(change.request())
    assert refused.value.refusal.rule == "merge.target"


@pytest.mark.parametrize("field", list(GateBinding.model_fields))
def test_an_approval_of_something_else_does_not_merge(clone: Change, field: str) -> None:
    request = clone.request()
    other = request.decisions[0].model_copy(update={"binding": clone.binding.model_copy(update={field: "0" * 40})})
    with pytest.raises(Refused) as refused:
        clone.forge.merge(request.model_copy(update={"decisions": (*request.decisions, other)}))
    assert refused.value.refusal.rule == "merge.unapproved"


@pytest.mark.parametrize("update", [{"choice": "reject"}, {"choice": "request-changes"}, {"run": "r1111"}])
def test_anything_but_an_approval_of_this_run_does_not_merge(clone: Change, update: dict[str, str]) -> None:
    request = clone.request()
    other = request.decisions[0].model_copy(update=update)
    for decisions in ((), (other,), (*request.decisions, other)):
        with pytest.raises(Refused) as refused:
            clone.forge.merge(request.model_copy(update={"decisions": decisions}))
        assert refused.value.refusal.rule == "merge.unapproved"
    assert git(clone.place, "rev-parse", "main") == clone.base


def test_a_moved_target_is_left_with_a_sentence(change: Change) -> None:
    git(change.work, "checkout", "-q", change.base)
    other = commit_files(change.work, {"other.txt": b"other\n"})
    if change.forge.git.bare:
        git(change.work, "push", "-q", str(change.place), f"{other}:refs/heads/main")
    else:
        git(change.place, "pull", "-q", "--ff-only", str(change.work), "HEAD")
    result = change.forge.merge(change.request())
    assert (result.state, result.rule) == ("left", "merge.base_moved")
    assert f"vestibule/{RUN}" in result.how_to_finish
    assert git(change.place, "rev-parse", "main") == other


def test_a_change_that_a_person_merged_by_hand_counts_as_merged(change: Change) -> None:
    if change.forge.git.bare:
        git(change.work, "push", "-q", str(change.place), f"{change.head}:refs/heads/main")
    else:
        git(change.place, "merge", "-q", "--ff-only", f"vestibule/{RUN}")
    result = change.forge.merge(change.request())
    assert (result.state, result.rule, result.commit) == ("merged", "merge.by_hand", change.head)


def test_a_forged_trailer_in_history_is_no_merge(clone: Change) -> None:
    git(clone.place, "commit", "-q", "--allow-empty", "-m", f"x\n\nVestibule-Run: {RUN}")
    assert clone.forge.look(RUN, clone.binding).merged_as is None
    assert clone.forge.merge(clone.request()).state == "left"


def test_merge_facts_follow_what_the_forge_sees(change: Change) -> None:
    def facts() -> dict[str, object]:
        view = change.forge.look(RUN, change.binding)
        return rules.merge_facts(view, change.binding, approved=True, verified=True)

    assert facts() == {
        "approved": True,
        "binding_current": True,
        "verified": True,
        "base_is_ancestor": True,
        "target_unmoved_or_mergeable": True,
    }
    git(change.place, "update-ref", "-d", f"refs/heads/vestibule/{RUN}")
    assert facts()["binding_current"] is False
    assert facts()["base_is_ancestor"] is False
    git(change.place, "update-ref", "refs/heads/main", git(change.place, "commit-tree", "-m", "x", change.binding.tree))
    assert facts()["target_unmoved_or_mergeable"] is False


def test_proposing_is_idempotent_and_moves_by_compare_and_swap(change: Change) -> None:
    assert change.forge.propose(RUN, change.work, change.head) == f"vestibule/{RUN}"
    second = commit_files(change.work, {"src/b.py": b"second\n"})
    with pytest.raises(Refused) as refused:
        change.forge.propose(RUN, change.work, second)
    assert refused.value.refusal.rule == "forge.branch_moved"
    change.forge.propose(RUN, change.work, second, previous=change.head)
    assert git(change.place, "rev-parse", f"vestibule/{RUN}") == second


def test_a_proposal_that_somebody_moved_or_deleted_is_not_overwritten(change: Change) -> None:
    second = commit_files(change.work, {"src/b.py": b"second\n"})
    git(change.place, "update-ref", f"refs/heads/vestibule/{RUN}", change.base)
    with pytest.raises(Refused):
        change.forge.propose(RUN, change.work, second, previous=change.head)
    assert git(change.place, "rev-parse", f"vestibule/{RUN}") == change.base
    git(change.place, "update-ref", "-d", f"refs/heads/vestibule/{RUN}")
    with pytest.raises(Refused):
        change.forge.propose(RUN, change.work, second, previous=change.head)


def test_a_proposal_that_is_checked_out_is_not_moved_under_it(clone: Change) -> None:
    second = commit_files(clone.work, {"src/b.py": b"second\n"})
    git(clone.place, "checkout", "-q", f"vestibule/{RUN}")
    with pytest.raises(Refused) as refused:
        clone.forge.propose(RUN, clone.work, second, previous=clone.head)
    assert refused.value.refusal.rule == "forge.branch_checked_out"
    assert git(clone.place, "status", "--porcelain") == ""


def test_a_proposal_that_cannot_be_written_is_refused_as_a_dependency(change: Change) -> None:
    git(change.place, "update-ref", "-d", f"refs/heads/vestibule/{RUN}")
    git(change.place, "branch", "vestibule", "main")
    with pytest.raises(DependencyDown) as down:
        change.forge.propose(RUN, change.work, change.head)
    assert down.value.name == "forge"


def test_a_symbolic_ref_in_a_branch_place_is_refused(change: Change) -> None:
    git(change.place, "update-ref", "-d", f"refs/heads/vestibule/{RUN}")
    git(change.place, "symbolic-ref", f"refs/heads/vestibule/{RUN}", "refs/heads/main")
    with pytest.raises(Refused) as refused:
        change.forge.propose(RUN, change.work, change.head)
    assert refused.value.refusal.rule == "forge.symbolic_ref"
    assert git(change.place, "rev-parse", "main") == change.base


@pytest.mark.parametrize("run", ["../main", "", "-x", "a b", "x\n", "r1/../../main", "r1.lock", "ü"])
def test_a_run_id_never_leaves_its_place_among_the_refs(clone: Change, run: str) -> None:
    with pytest.raises(UsageError):
        clone.forge.propose(run, clone.work, clone.head)


@pytest.mark.parametrize("spelling", ["main", "refs/heads/main", "heads/main", "HEAD"])
def test_the_target_is_the_branch_behind_any_spelling(change: Change, spelling: str) -> None:
    assert GitForge.open(change.place, spelling).target == TARGET


def test_a_remote_default_branch_stands_for_the_local_one(change: Change) -> None:
    git(change.work, "checkout", "-q", "main")
    assert GitForge.open(change.work, "refs/remotes/origin/HEAD").target == TARGET
    assert GitForge.open(change.work, "origin/main").target == TARGET


@pytest.mark.parametrize("ref", ["", "nothing", "-x", "--all", "main~0^{tree}", "a\nb", "\0", "v1"])
def test_a_base_that_is_no_branch_is_a_usage_error(change: Change, ref: str) -> None:
    git(change.place, "tag", "v1", "main")
    with pytest.raises(UsageError):
        GitForge.open(change.place, ref)
    with pytest.raises(UsageError):
        GitForge.open(change.place, change.base)


def test_an_empty_repository_is_a_usage_error(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "empty")
    with pytest.raises(UsageError, match="empty"):
        GitForge.open(tmp_path / "empty", "main")


def test_a_detached_head_moves_only_the_branch(clone: Change) -> None:
    git(clone.place, "checkout", "-q", "--detach")
    before = snapshot(clone.place)
    result = clone.forge.merge(clone.request())
    assert result.state == "merged"
    after = snapshot(clone.place)
    assert {key: after[key] for key in ("files", "staged", "head")} == {
        key: before[key] for key in ("files", "staged", "head")
    }


def test_the_same_request_makes_the_same_commit(change: Change) -> None:
    request = change.request()
    first = change.forge._commit(request, rules.merge_message(request))
    assert change.forge.merge(request).commit == first


def test_a_sha256_repository_merges_too(tmp_path: Path) -> None:
    place, work = tmp_path / "repo", tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256", str(place))
    base = commit_files(place, {"src/a.py": b"old\n", "gone": b"x\n"})
    git(tmp_path, "clone", "-q", str(place), str(work))
    head = commit_files(work, {"src/a.py": b"new\n", "gone": None, "b": b"b\n"})
    forge = GitForge.open(place, "main")
    forge.propose(RUN, work, head)
    binding = GateBinding(
        head_commit=head,
        tree=git(work, "rev-parse", "HEAD^{tree}"),
        base_commit=base,
        policy_digest="p",
        findings_digest="f",
        target=TARGET,
    )
    change = Change(place, forge, base, head, binding, work)
    assert forge.merge(change.request()).state == "merged"
    assert git(place, "status", "--porcelain") == ""
    assert sorted(path.name for path in place.iterdir()) == [".git", "b", "src"]


def test_describe_says_where_and_what_it_is_no_wall_against(change: Change) -> None:
    told = change.forge.describe()
    assert told["kind"] == "git"
    assert told["target"] == TARGET
    assert told["bare"] is change.forge.git.bare
    assert told["no_wall_against"]
