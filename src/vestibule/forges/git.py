"""The embedded forge: plain git. A bare repository, or a working clone that is its own forge.

Rules it keeps:
1. Refs move by compare-and-swap only. A branch that somebody else moved is noticed and refused, never overwritten.
2. A merge is looked at again right before: target, branch, tree, base, and every decision's binding. The merge commit's
   tree is the approved tree itself and its parents are the approved base and head, so it can hold nothing that nobody
   saw ("evil merge"); it is read back before the target moves.
3. A target that moved since the decision is left alone (`merge.base_moved`, the run stays approved): the decision was
   about another base. No merge machinery runs at all, and with it no merge driver a repository could configure.
4. A checked-out target moves only with its work tree, and only over a clean one (`checkout`); a branch checked out in
   another work tree, or being rebased in one, is left to the person.
5. Everything may be repeated after a crash: a merge that is in the target's history is found and returned.
6. Hooks, filters, fsmonitor and submodules are off (`git.repository`).

What it is no wall against: anyone who can write the repository's files. They can move any ref; what they move is
found by rule 2, but a branch of theirs needs no merge of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vestibule.core.errors import DependencyDown, Refused, UsageError
from vestibule.core.ids import SHA, Sha
from vestibule.core.model import GateBinding
from vestibule.core.ports import MergeRequest, MergeResult, MergeView
from vestibule.core.refusal import refusal
from vestibule.core.text.sanitize import one_line
from vestibule.forges import rules
from vestibule.forges.checkout import Checkout, Journal, NotClean
from vestibule.forges.pre_receive import NO_WALL_AGAINST, hook_state, install_pre_receive
from vestibule.git import Git, GitError
from vestibule.git.repository import valid_branch_ref


class GitForge:
    """A repository of git's own, at `git.root`; changes go to `target`."""

    kind = "git"

    def __init__(self, git: Git, target: str, *, trust_domain: str = "vestibule.local") -> None:
        self.git = git
        self._target = target
        self._trust_domain = trust_domain

    @classmethod
    def open(cls, path: Path, base_ref: str, *, trust_domain: str = "vestibule.local") -> GitForge:
        """The repository at `path` (bare, or a working clone's top folder); changes go to the branch of `base_ref`.

        `base_ref` is a branch in any of git's spellings; of a remote-tracking one, the local branch of that name is
        the target.

        Raises:
            UsageError: no repository, no commit yet, or a `base_ref` that names no branch.
        """
        git = Git.open(path)
        return cls(git, _target_of(git, base_ref), trust_domain=trust_domain)

    @property
    def target(self) -> str:
        return self._target

    def target_head(self) -> Sha:
        found = self.git.commit_of(self._target)
        if found is None:
            raise UsageError(
                f"The branch {rules.short(self._target)} has no commit in {self.git.root}.",
                next_step="Make a first commit, or name another branch with --base.",
            )
        return found

    def propose(self, run: str, clone: Path, commit: Sha, *, previous: Sha | None = None) -> str:
        """See `core.ports.Forge`."""
        branch = rules.branch_of(run)
        ref = f"refs/heads/{branch}"
        source = Git.open(clone)
        if not SHA.match(commit) or source.commit_of(commit) != commit:
            raise UsageError(f"{commit[:12]!r} is no commit in {clone}.")
        now = self._direct(ref)
        if now == commit:
            return branch
        if now != previous:
            raise Refused(_branch_moved(branch, now, previous))
        if self._checked_out(ref) is not None:
            raise Refused(_in_use(branch))
        try:
            self.git.fetch_commit(source, commit)
            if self.git.commit_of(commit) != commit:
                raise DependencyDown("forge", "The proposed commit did not arrive whole.", fact=commit)
            self.git.update_ref(ref, commit, previous)
        except GitError as error:
            if self._direct(ref) not in (previous, commit):
                raise Refused(_branch_moved(branch, self._direct(ref), previous)) from None
            raise DependencyDown(
                "forge",
                f"The branch {branch} could not be written.",
                fact=one_line(error.stderr.strip(), 300),
                person="Look at git's message: a full disk, a read-only repository, or a branch named 'vestibule'.",
            ) from None
        return branch

    def look(self, run: str, binding: GateBinding) -> MergeView:
        """See `core.ports.Forge`."""
        head = self._direct(f"refs/heads/{rules.branch_of(run)}")
        target_head = self._direct(self._target)
        base = binding.base_commit if self.git.commit_of(binding.base_commit) == binding.base_commit else None
        merged = self._merged_as(run, binding)
        by_hand = merged is None and bool(target_head) and self._holds(self._target, binding.head_commit)
        return MergeView(
            target=self._target,
            target_head=target_head,
            branch_head=head,
            tree=self.git.tree_of(head) if head else None,
            base_is_ancestor=bool(head and base and self.git.merge_base(base, head) == base),
            mergeable=merged is not None or by_hand or (base is not None and target_head == base),
            merged_as=merged,
            by_hand=by_hand,
        )

    def merge(self, request: MergeRequest) -> MergeResult:
        """See `core.ports.Forge`. An interrupted attempt is finished or undone before anything else."""
        message = rules.merge_message(request)
        self._refuse_unless_approved(request)
        try:
            if self.git.bare:
                return self._merge(request, message, None)
            checkout = Checkout(self.git)
            with checkout.exclusive():
                self._settle(checkout, request)
                return self._merge(request, message, checkout)
        except NotClean as found:
            return rules.left(self._target, found.rule, found.reason, self._how_to_finish(request.run))
        except GitError as error:
            raise DependencyDown(
                "forge", "git could not carry out the merge.", fact=one_line(error.stderr.strip(), 300)
            ) from None

    def settle(self, run: str) -> str:
        """See `core.ports.Forge`."""
        if self.git.bare:
            return ""
        checkout = Checkout(self.git)
        try:
            with checkout.exclusive():
                journal = checkout.pending()
                if journal is not None and journal.run == run:
                    checkout.finish(journal, forward=False)
                    checkout.clear_stale()
                    return f"The merge into {rules.short(self._target)} that was cut off left nothing behind."
                if journal is None:
                    checkout.clear_stale()
        except NotClean as found:
            return f"{found.reason} Look at `git status` in {one_line(str(self.git.root))}."
        return ""

    def protect(self) -> str:
        """See `core.ports.Forge`."""
        if not self.git.bare:
            return "not applicable"
        state = hook_state(self.git)
        if state != "absent":
            return state
        install_pre_receive(self.git.git_dir, [self._target])
        return "put there now"

    def describe(self) -> dict[str, Any]:
        """See `core.ports.Forge`."""
        return {
            "kind": self.kind,
            "place": str(self.git.root),
            "bare": self.git.bare,
            "target": self._target,
            "pre_receive": hook_state(self.git) if self.git.bare else "not applicable",
            "no_wall_against": list(NO_WALL_AGAINST),
        }

    def _refuse_unless_approved(self, request: MergeRequest) -> None:
        objection = rules.objection(request, self.look(request.run, request.binding))
        if objection is not None:
            raise Refused(objection)

    def _merge(self, request: MergeRequest, message: str, checkout: Checkout | None) -> MergeResult:
        binding = request.binding
        view = self.look(request.run, binding)
        objection = rules.objection(request, view)
        if objection is not None:
            raise Refused(objection)
        if view.merged_as is not None:
            return rules.merged(self._target, view.merged_as)
        if view.by_hand:
            done = rules.merged(self._target, binding.head_commit)
            return done.model_copy(update={"rule": "merge.by_hand", "reason": "A person merged it by hand."})
        if not view.mergeable:
            found = view.target_head[:12] if view.target_head else "nothing"
            reason = (
                f"{rules.short(self._target)} moved since the decision: "
                f"it was approved on {binding.base_commit[:12]} and holds {found} now."
            )
            how = f"Run the ticket again on the new base, or merge by hand: {self._command(request.run)}."
            return rules.left(self._target, "merge.base_moved", reason, how)
        commit = self._commit(request, message)
        place = self._checked_out(self._target)
        if place is None:
            return self._move_ref(request, commit)
        if checkout is None or place != self.git.root.resolve() or self.git.branch() != self._target:
            reason = f"{rules.short(self._target)} is checked out, or being rebased, in {one_line(str(place))}."
            how = f"Finish there: git -C {_quoted(str(place))} merge --ff-only {rules.branch_of(request.run)}."
            return rules.left(self._target, "merge.checked_out_elsewhere", reason, how)
        checkout.advance(run=request.run, target=self._target, old=binding.base_commit, new=commit)
        return rules.merged(self._target, commit)

    def _commit(self, request: MergeRequest, message: str) -> Sha:
        """The merge commit, stored and read back: the same request gives the same commit."""
        binding = request.binding
        commit = self.git.commit_tree(
            binding.tree,
            [binding.base_commit, binding.head_commit],
            message,
            name="Vestibule",
            email=f"vestibule@{self._trust_domain}",
            time=rules.git_time(request.time),
        )
        if not self._is_merge(commit, binding):
            raise DependencyDown("forge", "The merge commit that git stored is not the one that was asked for.")
        return commit

    def _move_ref(self, request: MergeRequest, commit: Sha) -> MergeResult:
        try:
            self.git.update_ref(self._target, commit, request.binding.base_commit)
        except GitError:
            if self._direct(self._target) == request.binding.base_commit:
                raise
            reason = f"{rules.short(self._target)} moved while it was being merged into."
            how = f"Run the ticket again on the new base, or merge by hand: {self._command(request.run)}."
            return rules.left(self._target, "merge.base_moved", reason, how)
        return rules.merged(self._target, commit)

    def _settle(self, checkout: Checkout, request: MergeRequest) -> None:
        """What a killed process left: ours and still approved goes on, anything else goes back."""
        journal = checkout.pending()
        if journal is not None:
            checkout.finish(journal, forward=self._same(journal, request))
        checkout.clear_stale()

    def _same(self, journal: Journal, request: MergeRequest) -> bool:
        binding = request.binding
        expected = (request.run, self._target, binding.base_commit)
        return (journal.run, journal.target, journal.old) == expected and self._is_merge(journal.new, binding)

    def _merged_as(self, run: str, binding: GateBinding) -> Sha | None:
        """The commit in the target's first-parent history that is this merge: parents, tree and trailer."""
        if not (SHA.match(binding.base_commit) and self.git.commit_of(binding.base_commit) == binding.base_commit):
            return None
        if self._direct(self._target) is None:
            return None
        argv = ["rev-list", "--first-parent", "--parents", "--min-parents=2", self._target, f"^{binding.base_commit}"]
        for line in self.git.text(argv).splitlines():
            commit, *parents = line.split()
            if parents != [binding.base_commit, binding.head_commit] or not self._is_merge(commit, binding):
                continue
            if f"Vestibule-Run: {run}" in self.git.text(["log", "-1", "--format=%B", commit]).splitlines():
                return commit
        return None

    def _holds(self, ref: str, commit: Sha) -> bool:
        """Whether `commit` is in the history of `ref`."""
        if not SHA.match(commit) or self.git.commit_of(commit) != commit:
            return False
        return self.git.merge_base(ref, commit) == commit

    def _is_merge(self, commit: Sha, binding: GateBinding) -> bool:
        if not SHA.match(commit) or self.git.commit_of(commit) != commit:
            return False
        parents = self.git.text(["rev-list", "--no-walk", "--parents", commit]).split()[1:]
        return parents == [binding.base_commit, binding.head_commit] and self.git.tree_of(commit) == binding.tree

    def _direct(self, ref: str) -> Sha | None:
        """The commit a branch holds; a symbolic ref in a branch's place is refused."""
        if self.git.run(["symbolic-ref", "--quiet", ref], ok_codes=(0, 1, 128)).strip():
            raise Refused(
                refusal(
                    "forge.symbolic_ref",
                    "A branch of ours is a symbolic ref and leads elsewhere.",
                    fact=ref,
                    agent="Stop here; a person has to look.",
                    person=f"Remove it with `git symbolic-ref --delete {ref}` once you know why it is there.",
                )
            )
        return self.git.commit_of(ref)

    def _checked_out(self, ref: str) -> Path | None:
        """The work tree that has `ref` checked out or in a rebase or bisect, this one or a linked one."""
        records = self.git.run(["worktree", "list", "--porcelain", "-z"]).split(b"\0\0")
        common = (self.git.git_dir / self.git.text(["rev-parse", "--git-common-dir"])).resolve()
        if not self.git.bare and self.git.branch() == ref:
            return self.git.root.resolve()
        for record in records:
            lines = record.split(b"\0")
            if f"branch {ref}".encode() in lines:
                return Path(lines[0].removeprefix(b"worktree ").decode("utf-8", "surrogateescape")).resolve()
        for folder in (common, *sorted(common.glob("worktrees/*"))):
            for name in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
                try:
                    held = (folder / name).read_text("utf-8", "replace").strip()
                except OSError:
                    continue
                if held in (ref, rules.short(ref)):
                    return _place_of(folder)
        return None

    def _how_to_finish(self, run: str) -> str:
        command = f"git -C {_quoted(str(self.git.root))} merge --ff-only {rules.branch_of(run)}"
        return f"Clear that up, then run `vestibule resume {run}`; or finish by hand: {command}."

    def _command(self, run: str) -> str:
        return f"git -C {_quoted(str(self.git.root))} merge {rules.branch_of(run)}"


def _target_of(git: Git, base_ref: str) -> str:
    """The full name of the local branch behind `base_ref`."""
    named = f"refs/heads/{base_ref}"
    if base_ref and valid_branch_ref(named) and git.commit_of(named):
        return named
    if git.commit_of(base_ref) is None:
        raise UsageError(
            f"{one_line(base_ref, 60)!r} names no commit in {git.root}.",
            why="The repository may be empty, or its branch has another name.",
            next_step="Make a first commit, or name an existing branch with --base.",
        )
    full = git.text(["rev-parse", "--symbolic-full-name", "--end-of-options", base_ref]).removeprefix(
        "--end-of-options\n"
    )
    if full.startswith("refs/remotes/"):
        leads = git.text(["symbolic-ref", "--quiet", full], ok_codes=(0, 1, 128)) or full
        full = "refs/heads/" + leads.removeprefix("refs/remotes/").partition("/")[2]
    if not valid_branch_ref(full):
        raise UsageError(
            f"{one_line(base_ref, 60)!r} is a commit or tag, and a change can only be merged into a branch.",
            next_step="Name a branch with --base.",
        )
    return full


def _place_of(folder: Path) -> Path:
    """The work tree that a git directory (`.git`, or `worktrees/<name>` in it) belongs to."""
    try:
        return Path((folder / "gitdir").read_text("utf-8").strip()).parent.resolve()
    except OSError:
        return folder.parent if folder.name == ".git" else folder


def _branch_moved(branch: str, now: Sha | None, previous: Sha | None) -> Any:
    expected = previous[:12] if previous else "no such branch yet"
    found = now[:12] if now else "no such branch"
    return refusal(
        "forge.branch_moved",
        f"The branch {branch} was moved by somebody else and is not overwritten.",
        fact=f"expected {expected}, found {found}",
        agent="Stop here; a person has to look.",
        person=f"Look at it (`git log {branch}`), rename or delete it, and run the ticket again.",
    )


def _in_use(branch: str) -> Any:
    return refusal(
        "forge.branch_checked_out",
        f"The branch {branch} is checked out in a work tree and is not moved under it.",
        fact=branch,
        agent="Stop here; a person has to look.",
        person="Switch that work tree to another branch, then go on with `vestibule resume`.",
    )


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(one_line(text, 300))
