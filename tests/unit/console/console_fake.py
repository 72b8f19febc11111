"""Runs in memory, for tests of the console: a reader, a decision path and a realistic run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.testclient import TestClient

from vestibule.console.app import build_console_app
from vestibule.console.guard import Origin
from vestibule.console.sessions import Sessions
from vestibule.core.clock import rfc3339
from vestibule.core.errors import Refused
from vestibule.core.ids import new_id, new_run_id
from vestibule.core.labels import Confidentiality, Integrity, Label
from vestibule.core.model import (
    AgentRef,
    AnswerChoice,
    Budget,
    Choice,
    Decision,
    Finding,
    Gate,
    GateBinding,
    Person,
    Place,
    Question,
    Scope,
    Spec,
    State,
    Task,
    Ticket,
    Usage,
    Wall,
    WallsReport,
)
from vestibule.core.refusal import refusal
from vestibule.core.runs import (
    AskedView,
    Check,
    Counts,
    LogHead,
    Outcome,
    RunSummary,
    RunView,
    Standing,
    TimelineEvent,
    binding_digest,
)
from vestibule.core.verdict import Ruling

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
ALICE = Person(id="local:alice", how="user id 1000 of this process")
BASE, HEAD, TREE = "a1" * 20, "b2" * 20, "c3" * 20

# A lone `~` stands for an empty line of context, which would end in a space here.
PATCH = b"""\
diff --git a/src/shop/cart.py b/src/shop/cart.py
index 1111111111111111111111111111111111111111..2222222222222222222222222222222222222222 100644
--- a/src/shop/cart.py
+++ b/src/shop/cart.py
@@ -10,9 +10,12 @@ class Cart:
     def total(self) -> int:
         \"\"\"The sum in cents.\"\"\"
-        return sum(item.price for item in self.items)
+        subtotal = sum(item.price * item.quantity for item in self.items)
+        if self.voucher is not None:
+            subtotal -= self.voucher.discount(subtotal)
+        return max(subtotal, 0)
~
     def add(self, item: Item) -> None:
         self.items.append(item)
~
     def clear(self) -> None:
         self.items.clear()
@@ -40,3 +43,4 @@ class Voucher:
     def discount(self, subtotal: int) -> int:
-        return subtotal * self.percent / 100
+        # Whole cents, rounded down: prices are integers everywhere.
+        return subtotal * self.percent // 100
~
diff --git a/tests/test_cart.py b/tests/test_cart.py
new file mode 100644
index 0000000000000000000000000000000000000000..3333333333333333333333333333333333333333
--- /dev/null
+++ b/tests/test_cart.py
@@ -0,0 +1,8 @@
+from shop.cart import Cart, Item, Voucher
+
+
+def test_quantity_counts() -> None:
+    cart = Cart(voucher=Voucher(percent=15))
+    cart.add(Item(price=333, quantity=3))
+
+    assert cart.total() == 850
""".replace(b"\n~\n", b"\n \n")


def refused_example() -> Any:
    return refusal(
        "context.write.scope",
        "This path is outside of what the task may write.",
        fact="deploy/prod.yaml",
        agent="Work on src/** and tests/** only.",
        person="Widen `write` of the role, if the task needs this file.",
    )


def timeline(count: int = 0) -> tuple[TimelineEvent, ...]:
    actor = "spiffe://example.com/run/r/agent/claude"
    rows: list[TimelineEvent] = []

    def add(action: str, resource: str, ruling: Ruling = Ruling.ALLOW, subject: str = "agent", **more: Any) -> None:
        seq = len(rows) + 1
        time = rfc3339(NOW - timedelta(minutes=30) + timedelta(seconds=7 * seq))
        rows.append(
            TimelineEvent(
                seq=seq,
                time=time,
                phase="intent",
                actor=actor if subject == "agent" else "system",
                subject=subject,  # type: ignore[arg-type]
                action=action,
                resource=resource,
                verdict=ruling,
                **more,
            )
        )
        if ruling is Ruling.ALLOW:
            rows.append(rows[-1].model_copy(update={"seq": seq + 1, "phase": "outcome", "intent": seq, "result": "ok"}))

    add("task.admit", "run", subject="system")
    add("context.write", "../outside", Ruling.DENY, subject="probe", reasons=("path.traversal",))
    add("model.request", "anthropic/claude-sonnet-5")
    add("context.read", "src/shop/cart.py", why="I look at how the total is made.")
    add("context.write", "src/shop/cart.py")
    add(
        "context.write",
        "deploy/prod.yaml",
        Ruling.DENY,
        reasons=("context.write.scope",),
        refusal=refused_example(),
        why="I only align the deployment. This was agreed.",
    )
    add("context.exec", "pytest -q")
    for index in range(count):
        add("context.read", f"src/module_{index}.py")
    add("change.propose", HEAD, Ruling.HOLD, subject="system", reasons=("gate.review",))
    return tuple(rows)


def sample_view(run: str, **changes: Any) -> RunView:
    """A run that waits for a review. `changes` replace fields of the view."""
    spec = Spec(
        title="Vouchers are ignored in the cart's total",
        body="The total of a cart ignores quantities and vouchers.\n\n## Acceptance\n- the total counts quantities\n",
        requirements=("Cart.total counts quantities", "Voucher.discount returns whole cents"),
        acceptance=("A cart of three items at 333 with a voucher of 15 % costs 850", "Existing tests pass"),
        ticket_digest="sha256:" + "4" * 64,
        integrity=Integrity.MEMBER,
    )
    scope = Scope(
        read=("src/**", "tests/**"),
        write=("src/**", "tests/**"),
        tools=("read_file", "write_file", "run_command"),
        commands=("pytest", "ruff"),
        hosts=("docs.example.com:443",),
        protected=("deploy/**",),
    )
    agent = AgentRef(
        name="claude",
        adapter="claude-code",
        model="claude-sonnet-5",
        version="claude-code@2.1.0+claude-sonnet-5+sha256:9f31c0",
    )
    binding = GateBinding(
        head_commit=HEAD,
        tree=TREE,
        base_commit=BASE,
        policy_digest="sha256:" + "5" * 64,
        findings_digest="sha256:" + "6" * 64,
    )
    gate = Gate(
        id="gate-0123456789abcdef",
        run=run,
        kind="review",
        round=1,
        approvals=1,
        eligible=("local:alice", "local:bob"),
        self_approval="never",
        requester="local:carol",
        binding=binding,
        opened=rfc3339(NOW - timedelta(minutes=20)),
        expires=rfc3339(NOW + timedelta(days=6, hours=23)),
    )
    fields: dict[str, Any] = {
        "run": run,
        "state": State.AWAITING_REVIEW,
        "verdict": Ruling.HOLD,
        "reasons": ("gate.review",),
        "created": rfc3339(NOW - timedelta(minutes=31)),
        "updated": rfc3339(NOW - timedelta(minutes=20)),
        "requester": "local:carol",
        "title": spec.title,
        "ticket": Ticket(source="ticket.md", text=spec.body, author="local:carol", integrity=Integrity.MEMBER),
        "task": Task(
            run=run,
            spec=spec,
            role="backend",
            scope=scope,
            budget=Budget(nano_usd=2_500_000_000, tokens=500_000, minutes=20),
            agent=agent,
            requester="local:carol",
            base_commit=BASE,
        ),
        "workload": f"spiffe://example.com/run/{run}/agent/claude",
        "branch": f"vestibule/{run}",
        "target": "refs/heads/main",
        "base_commit": BASE,
        "head_commit": HEAD,
        "tree": TREE,
        "changed_files": ("src/shop/cart.py", "tests/test_cart.py"),
        "patch": PATCH,
        "message": "I fixed the total and added a test. All tests pass, nothing else needs a look.",
        "findings": (
            Finding(
                rule="size.large_function",
                severity="note",
                verdict=Ruling.ALLOW,
                message="Cart.total grew.",
                place=Place(path="src/shop/cart.py", line=10),
            ),
            Finding(
                rule="bandit.B101",
                severity="warning",
                verdict=Ruling.HOLD,
                message="assert is used in a test",
                place=Place(path="tests/test_cart.py", line=8),
                fix="Nothing to do in a test.",
                tool="bandit",
            ),
        ),
        "checks": (Check(name="pytest -q", result="passed", detail="8 passed in 0.21s", commit=HEAD),),
        "counts": Counts(allow=5, hold=0, deny=1),
        "events": timeline(),
        "usage": Usage(
            requests=14, input_tokens=48_211, output_tokens=3_902, cache_read_tokens=120_400, cost_nano_usd=312_450_000
        ),
        "walls": WallsReport(
            tier="user",
            walls={
                "mounts": Wall(state="up", proved_by="a file outside of the view could not be opened"),
                "network": Wall(state="up", proved_by="connect to 192.0.2.1 failed: ENETUNREACH"),
                "seccomp": Wall(state="up", proved_by="ptrace failed: EPERM"),
                "no_new_privs": Wall(state="up", proved_by="PR_GET_NO_NEW_PRIVS is 1"),
                "monitor": Wall(state="down", proved_by="no BPF here"),
            },
        ),
        "walls_minimum": ("mounts", "network", "seccomp", "no_new_privs"),
        "audit": LogHead(
            origin="vestibule.example.com/log", size=42, root="q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="
        ),
        "gate": gate,
    }
    return RunView(**{**fields, **changes})


def rebound(view: RunView, head: str) -> RunView:
    """The same run after another commit: the gate asks about that one now."""
    assert view.gate is not None
    binding = view.gate.binding.model_copy(update={"head_commit": head})
    gate = view.gate.model_copy(update={"binding": binding, "round": view.gate.round + 1})
    return view.model_copy(update={"gate": gate, "head_commit": head})


def asked_question(run: str, **changes: Any) -> AskedView:
    """A question of the agent's that this person may answer. `changes` replace fields of the view or the question."""
    fields: dict[str, Any] = {
        "id": "q-0123456789abcdef",
        "run": run,
        "round": 1,
        "attempt": 1,
        "kind": "scope",
        "asked": {"paths": ["lib/prices.py", "lib/tax/**"], "access": "read"},
        "why": "The total needs the rates.",
        "digest": "sha256:" + "7" * 64,
        "labels": Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.INTERNAL),
        "requester": "local:carol",
        "eligible": ("local:alice", "local:bob"),
        "self_approval": "never",
        "opened": rfc3339(NOW - timedelta(minutes=5)),
        "expires": rfc3339(NOW + timedelta(days=1)),
    }
    own = {"beyond", "grantable", "standing", "refusable"}
    question = Question(**{**fields, **{name: value for name, value in changes.items() if name not in own}})
    may = Standing(may=True, reason="local:alice may answer.")
    view: dict[str, Any] = {"grantable": True, "standing": may, "refusable": True}
    return AskedView(question=question, **{**view, **{name: changes[name] for name in own & set(changes)}})


class FakeRuns:
    """A `RunReader` and a `DecideGate` over a dictionary. `broken` is raised by whatever is asked next."""

    def __init__(self, *views: RunView) -> None:
        self.views = {view.run: view for view in views}
        self.decided: list[tuple[str, str, str, Person]] = []
        self.broken: Exception | None = None
        self.decide_fails: Exception | None = None
        self.answered: list[tuple[str, str, str, Person]] = []
        self.answer_fails: Exception | None = None

    def list_runs(self) -> list[RunSummary]:
        if self.broken:
            raise self.broken
        return [
            RunSummary(
                run=view.run,
                state=view.state,
                verdict=view.verdict,
                title=view.title,
                requester=view.requester,
                role=view.task.role if view.task else "",
                agent=view.task.agent if view.task else None,
                scripted_model=view.scripted_model,
                held=view.held,
                created=view.created,
                updated=view.updated,
                expires=view.gate.expires if view.gate and view.gate.state == "open" else "",
                decisions=view.counts,
                findings=Counts(
                    **{ruling.value: sum(item.verdict is ruling for item in view.findings) for ruling in Ruling}
                ),
                changed_files=len(view.changed_files),
                cost_nano_usd=view.usage.cost_nano_usd,
                questions=sum(item.question.state == "open" for item in view.questions),
            )
            for view in self.views.values()
        ]

    def get_run(self, run: str) -> RunView | None:
        if self.broken:
            raise self.broken
        return self.views.get(run)

    def decide(self, run: str, choice: Choice, reason: str, seen_binding_digest: str, person: Person) -> Outcome:
        if self.decide_fails:
            raise self.decide_fails
        view = self.views[run]
        assert view.gate is not None
        if seen_binding_digest != binding_digest(view.gate):
            raise Refused(refusal("review.stale", "The change moved on.", agent="-", person="Look again."))
        self.decided.append((run, choice, reason, person))
        state, gate_state = {
            "approve": (State.MERGED, "approved"),
            "request-changes": (State.CHANGES_REQUESTED, "changes_requested"),
            "reject": (State.REJECTED, "rejected"),
        }[choice]
        decision = Decision(
            id=new_id("d"),
            gate=view.gate.id,
            run=run,
            person=person,
            choice=choice,
            reason=reason,
            binding=view.gate.binding,
            channel="console",
            time=rfc3339(NOW),
        )
        self.views[run] = view.model_copy(
            update={
                "state": state,
                "gate": view.gate.model_copy(update={"state": gate_state}),
                "decisions": (*view.decisions, decision),
            }
        )
        return Outcome(run=run, state=state, decision=decision.id, message=f"Recorded: {choice}.")

    def answer(self, question: str, choice: AnswerChoice, reason: str, seen: str, person: Person) -> Outcome:
        if self.answer_fails:
            raise self.answer_fails
        view = next(view for view in self.views.values() for item in view.questions if item.question.id == question)
        [item] = [item for item in view.questions if item.question.id == question]
        if seen != item.question.digest:
            raise Refused(refusal("review.stale", "It is another question.", agent="-", person="Look again."))
        self.answered.append((question, choice, reason, person))
        state = "granted" if choice == "grant" else "closed" if item.question.kind == "block" else "refused"
        after = item.question.model_copy(
            update={"state": state, "person": person, "reason": reason, "answered": rfc3339(NOW)}
        )
        done = item.model_copy(update={"question": after, "standing": None, "refusable": False})
        others = tuple(done if other is item else other for other in view.questions)
        self.views[view.run] = view.model_copy(update={"questions": others})
        return Outcome(run=view.run, state=view.state, decision=question, message=f"Recorded: {choice}.")


def new_run(offset: int = 0) -> str:
    return new_run_id(int(NOW.timestamp() * 1000) + offset)


def patch_for(path: str, lines: list[str], *, sign: str = "+") -> bytes:
    """A patch that adds (or removes) a file with these lines."""
    old, new = ("0,0", f"1,{len(lines)}") if sign == "+" else (f"1,{len(lines)}", "0,0")
    kind = "new file mode 100644" if sign == "+" else "deleted file mode 100644"
    head = f"diff --git a/{path} b/{path}\n{kind}\nindex {'0' * 40}..{'1' * 40}\n"
    names = f"--- /dev/null\n+++ b/{path}\n" if sign == "+" else f"--- a/{path}\n+++ /dev/null\n"
    body = "".join(f"{sign}{line}\n" for line in lines)
    return (head + names + f"@@ -{old} +{new} @@\n" + body).encode("utf-8", "surrogateescape")


PORT = 8123
ORIGIN = Origin("127.0.0.1", PORT)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Console:
    """One console and the ways a test uses it."""

    def __init__(self) -> None:
        self.run = new_run()
        self.runs = FakeRuns(sample_view(self.run))
        self.clock = Clock()
        self.moment = NOW
        self.sessions = Sessions(ALICE, clock=self.clock)
        self.app = build_console_app(
            runs=self.runs,
            decide=self.runs.decide,
            sessions=self.sessions,
            origin=ORIGIN,
            clock=lambda: self.moment,
            answer=self.runs.answer,
        )

    def visitor(self, *, raise_errors: bool = True) -> TestClient:
        """A browser without a session."""
        return TestClient(
            self.app,
            base_url=ORIGIN.url,
            client=("127.0.0.1", 40000),
            follow_redirects=False,
            raise_server_exceptions=raise_errors,
        )

    def signed_in(self, *, raise_errors: bool = True) -> TestClient:
        client = self.visitor(raise_errors=raise_errors)
        assert client.get("/login", params={"token": self.sessions.issue_login()}).status_code == 303
        return client

    def form(self, page: str) -> dict[str, str]:
        """The hidden fields of a page's decision form, with a choice and a reason."""
        found = {
            name: match[1]
            for name in ("form_token", "seen")
            if (match := re.search(rf'name="{name}" value="([^"]*)"', page))
        }
        return {**found, "choice": "approve", "reason": "Does what the ticket asks for."}

    def post(self, client: TestClient, form: dict[str, str], **headers: str):  # type: ignore[no-untyped-def]
        return client.post(
            f"/runs/{self.run}/decision",
            data=form,
            headers={"origin": ORIGIN.url, "sec-fetch-site": "same-origin"} | headers,
        )
