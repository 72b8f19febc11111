"""Every crossing decides, records, then acts; what leaves is judged by everything the run has read so far."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vestibule.core.canonical import digest
from vestibule.core.crossing import MAX_JUDGEMENTS, Actor, Crossing, Held, Step
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.labels import Confidentiality, Integrity, Label, RunLabel
from vestibule.core.model import Event, Receipt
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict

AGENT = Actor("r00000000000000", "spiffe://example.com/run/r/agent/a", "agent")
SECRET = Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.SECRET)
WEB = Label(integrity=Integrity.WEB)


class Log:
    """An audit log whose commits the test makes, one by one or at once."""

    def __init__(self, *, slow: bool = False) -> None:
        self.events: list[Event] = []
        self.waiting: list[tuple[Event, concurrent.futures.Future[Receipt]]] = []
        self.slow = slow
        self.fails: BaseException | None = None

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        future: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        if self.fails is not None:
            future.set_exception(self.fails)
        elif self.slow and event.phase == "intent":
            self.waiting.append((event, future))
        else:
            self._write(event, future)
        return future

    def commit(self, resource: str) -> None:
        """Makes the oldest waiting intent of `resource` durable."""
        found = next(item for item in self.waiting if item[0].resource == resource)
        self.waiting.remove(found)
        self._write(*found)

    def _write(self, event: Event, future: concurrent.futures.Future[Receipt]) -> None:
        if future.cancelled():
            return
        self.events.append(event)
        future.set_result(Receipt(seq=len(self.events), time="2026-01-01T00:00:00.000Z"))


class Policy:
    """Allows everything; what leaves is held once the run has read something secret, and denied after the web."""

    digest = "sha256:test"

    def __init__(self) -> None:
        self.asked: list[PolicyInput] = []
        self.broken: BaseException | None = None

    def decide(self, request: PolicyInput) -> Verdict:
        self.asked.append(request)
        if self.broken is not None:
            raise self.broken
        ruling = Ruling.ALLOW
        if request.resource.get("outward"):
            if request.labels["integrity"] == "web":
                ruling = Ruling.DENY
            elif request.labels["confidentiality"] == "secret":
                ruling = Ruling.HOLD
        if request.facts.get("ruling"):
            ruling = Ruling(request.facts["ruling"])
        return Verdict(ruling=ruling, reasons=() if ruling is Ruling.ALLOW else ("test.rule",))


def step(name: str, *, reads: Label | None = None, outward: bool = False, **facts: Any) -> Step:
    resource: dict[str, Any] = {"id": name}
    if outward:
        resource["outward"] = True
    return Step("context.call", resource, facts, reads)


def effect(done: list[str], name: str) -> Callable[[], Awaitable[tuple[str, bool, dict[str, Any]]]]:
    async def act() -> tuple[str, bool, dict[str, Any]]:
        done.append(name)
        return name, True, {}

    return act


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop run until something holds; the test's own time-out ends it otherwise."""
    while not true():
        await asyncio.sleep(0)


def phases(log: Log, name: str) -> list[str]:
    return [
        f"{event.phase}:{event.verdict}:{event.result}:{event.details.get('error', '')}"
        for event in log.events
        if event.resource == name
    ]


# parallel reads and an outward effect


@pytest.mark.parametrize(("reads", "refusal"), [(SECRET, Held), (WEB, Refused)])
def test_an_outward_effect_that_races_with_a_read_sees_the_joined_label(reads: Label, refusal: type[Refused]) -> None:
    log, policy, done = Log(slow=True), Policy(), []  # type: Log, Policy, list[str]
    crossing = Crossing(policy, log)

    async def work() -> None:
        send = asyncio.create_task(crossing.cross_all(AGENT, [step("send", outward=True)], effect(done, "send")))
        await until(lambda: len(log.waiting) == 1)  # decided under the low label, and not yet durable
        read = asyncio.create_task(crossing.cross_all(AGENT, [step("read", reads=reads)], effect(done, "read")))
        await until(lambda: len(log.waiting) == 2)
        log.commit("read")
        await read
        log.commit("send")
        await until(lambda: bool(log.waiting))  # judged again
        log.commit("send")
        with pytest.raises(refusal) as caught:
            await send
        assert type(caught.value) is refusal

    asyncio.run(asyncio.wait_for(work(), 5))
    assert done == ["read"]
    judged = [request.labels for request in policy.asked if request.resource["id"] == "send"]
    assert [item["confidentiality" if reads is SECRET else "integrity"] for item in judged] == (
        ["public", "secret"] if reads is SECRET else ["operator", "web"]
    )
    # The decision that no longer stood is closed as such, and the one that counts carries the label it was made under.
    ruling = "hold" if refusal is Held else "deny"
    assert phases(log, "send") == ["intent:allow::", "outcome:allow:failed:labels.moved", f"intent:{ruling}::"]
    assert log.events[-1].labels == Label().join(reads)


def test_a_read_under_way_is_seen_before_it_has_shown_anything() -> None:
    log, done = Log(slow=True), []  # type: Log, list[str]
    crossing = Crossing(Policy(), log)

    async def work() -> None:
        read = asyncio.create_task(crossing.cross_all(AGENT, [step("read", reads=SECRET)], effect(done, "read")))
        await until(lambda: len(log.waiting) == 1)  # the read's intent is not durable: not a byte was released
        send = asyncio.create_task(crossing.cross_all(AGENT, [step("send", outward=True)], effect(done, "send")))
        await until(lambda: len(log.waiting) == 2)
        log.commit("send")
        with pytest.raises(Held):
            await send
        log.commit("read")
        await read

    asyncio.run(asyncio.wait_for(work(), 5))
    assert done == ["read"]


@pytest.mark.parametrize("readers", [1, 3, 7])
def test_many_reads_at_once_and_the_effect_is_judged_by_all_of_them(readers: int) -> None:
    log, policy, done = Log(slow=True), Policy(), []  # type: Log, Policy, list[str]
    crossing = Crossing(policy, log)

    async def work() -> None:
        send = asyncio.create_task(crossing.cross_all(AGENT, [step("send", outward=True)], effect(done, "send")))
        await until(lambda: len(log.waiting) == 1)
        labels = [Label(confidentiality=Confidentiality.INTERNAL), Label(integrity=Integrity.OUTSIDER), SECRET]
        reads = [
            asyncio.create_task(
                crossing.cross_all(AGENT, [step(f"read{n}", reads=labels[n % 3])], effect(done, f"read{n}"))
            )
            for n in range(readers)
        ]
        await until(lambda: len(log.waiting) == 1 + readers)
        log.commit("send")
        await until(lambda: sum(event.resource == "send" for event, _ in log.waiting) == 1)
        for n in range(readers):
            log.commit(f"read{n}")
        await asyncio.gather(*reads)
        log.commit("send")
        if readers < 3:
            assert await send == "send"
        else:
            with pytest.raises(Held):
                await send

    asyncio.run(asyncio.wait_for(work(), 5))
    joined = crossing.labels.current
    last = [request.labels for request in policy.asked if request.resource["id"] == "send"][-1]
    assert last == joined.model_dump(mode="json")
    assert ("send" in done) == (readers < 3)


def test_other_gateways_of_the_run_raise_the_same_label() -> None:
    log, done, shared = Log(slow=True), [], RunLabel()  # type: Log, list[str], RunLabel
    ours, theirs = Crossing(Policy(), log, labels=shared), Crossing(Policy(), Log(), labels=shared)

    async def work() -> None:
        send = asyncio.create_task(ours.cross_all(AGENT, [step("send", outward=True)], effect(done, "send")))
        await until(lambda: len(log.waiting) == 1)
        await theirs.cross_all(AGENT, [step("read", reads=SECRET)], effect([], "read"))
        log.commit("send")
        await until(lambda: bool(log.waiting))
        log.commit("send")
        with pytest.raises(Held):
            await send

    asyncio.run(asyncio.wait_for(work(), 5))
    assert done == []


def test_what_is_not_outward_is_judged_once_however_the_label_moves() -> None:
    log, policy, done = Log(slow=True), Policy(), []  # type: Log, Policy, list[str]
    crossing = Crossing(policy, log)

    async def work() -> None:
        first = asyncio.create_task(crossing.cross_all(AGENT, [step("a", reads=WEB)], effect(done, "a")))
        await until(lambda: len(log.waiting) == 1)
        crossing.labels.join(SECRET)
        log.commit("a")
        await first

    asyncio.run(asyncio.wait_for(work(), 5))
    assert len(policy.asked) == 1
    assert crossing.labels.current == SECRET.join(WEB)


def test_an_effect_that_reads_and_leaves_is_not_judged_again_for_its_own_label() -> None:
    policy, done = Policy(), []  # type: Policy, list[str]
    crossing = Crossing(policy, Log())
    mixed = step("ask", reads=SECRET, outward=True)
    assert asyncio.run(crossing.cross_all(AGENT, [mixed], effect(done, "ask"))) == "ask"
    assert len(policy.asked) == 1
    with pytest.raises(Held):
        asyncio.run(crossing.cross_all(AGENT, [mixed], effect(done, "ask")))
    assert done == ["ask"]


def test_a_label_that_never_rests_is_a_refusal_and_nothing_leaves() -> None:
    done: list[str] = []
    crossing = Crossing(Policy(), Log())
    real, turns = crossing.audit.submit, iter(range(1, 100))
    labels = [Label(integrity=i, confidentiality=c) for i in Integrity for c in Confidentiality]

    def moving(event: Event) -> concurrent.futures.Future[Receipt]:
        if event.phase == "intent":
            crossing.labels._label = labels[next(turns) % len(labels)]
        return real(event)

    crossing.audit.submit = moving  # type: ignore[method-assign]
    crossing.decider.decide = lambda request: Verdict(ruling=Ruling.ALLOW, reasons=())  # type: ignore[method-assign]
    with pytest.raises(DependencyDown) as caught:
        asyncio.run(crossing.cross_all(AGENT, [step("send", outward=True)], effect(done, "send")))
    assert caught.value.refusal.rule == "dependency.labels"
    assert done == []
    assert next(turns) == MAX_JUDGEMENTS + 1


# decide, record, act


def test_no_effect_before_every_intent_is_durable() -> None:
    log, done = Log(slow=True), []  # type: Log, list[str]
    crossing = Crossing(Policy(), log)

    async def work() -> None:
        both = asyncio.create_task(crossing.cross_all(AGENT, [step("a"), step("b")], effect(done, "ab")))
        await until(lambda: len(log.waiting) == 2)
        log.commit("b")
        for _ in range(20):
            await asyncio.sleep(0)
        assert done == []
        log.commit("a")
        assert await both == "ab"

    asyncio.run(asyncio.wait_for(work(), 5))
    assert [event.phase for event in log.events] == ["intent", "intent", "outcome", "outcome"]


def test_a_receipt_comes_from_another_thread_and_a_loop_that_is_gone_is_nobody_s_trouble() -> None:
    log, done = Log(slow=True), []  # type: Log, list[str]
    crossing = Crossing(Policy(), log)

    async def work() -> None:
        call = asyncio.create_task(crossing.cross_all(AGENT, [step("a")], effect(done, "a")))
        await until(lambda: bool(log.waiting))
        thread = threading.Thread(target=log.commit, args=("a",))
        thread.start()
        assert await call == "a"
        thread.join()
        asyncio.create_task(crossing.cross_all(AGENT, [step("late")], effect(done, "late")))  # noqa: RUF006
        await until(lambda: bool(log.waiting))
        late.append(log.waiting.pop()[1])

    late: list[concurrent.futures.Future[Receipt]] = []
    asyncio.run(asyncio.wait_for(work(), 5))
    assert done == ["a"]
    # The loop took its entry back when it ended, so nothing was recorded that nobody would act on.
    assert late[0].cancelled()


def test_cancelled_while_it_waits_takes_every_entry_back_that_it_still_can() -> None:
    log = Log(slow=True)
    crossing = Crossing(Policy(), log)

    async def work() -> None:
        call = asyncio.create_task(crossing.cross_all(AGENT, [step("a"), step("b")], effect([], "ab")))
        await until(lambda: len(log.waiting) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(asyncio.wait_for(work(), 5))
    assert all(future.cancelled() for _, future in log.waiting)


def test_one_refusal_stops_all_and_a_deny_is_no_hold() -> None:
    log, done = Log(), []  # type: Log, list[str]
    crossing = Crossing(Policy(), log)
    for rulings, kind in ((("allow", "hold"), Held), (("hold", "deny"), Refused)):
        steps = [step(name, ruling=name) for name in rulings]
        with pytest.raises(Refused) as caught:
            asyncio.run(crossing.cross_all(AGENT, steps, effect(done, "x")))
        assert type(caught.value) is kind
    assert done == []
    assert phases(log, "allow") == ["intent:allow::", "outcome:allow:failed:test.rule"]
    assert crossing.labels.current == Label()


def test_a_refused_read_raises_no_label() -> None:
    crossing = Crossing(Policy(), Log())
    with pytest.raises(Refused):
        asyncio.run(crossing.cross_all(AGENT, [step("x", reads=SECRET, ruling="deny")], effect([], "x")))
    assert crossing.labels.current == Label()


@pytest.mark.parametrize("what", ["policy", "audit"])
def test_what_is_broken_denies(what: str) -> None:
    log, policy, done = Log(), Policy(), []  # type: Log, Policy, list[str]
    if what == "policy":
        policy.broken = RuntimeError("gone")
    else:
        log.fails = OSError("disk full")
    with pytest.raises(Refused) as caught:
        asyncio.run(Crossing(policy, log).cross_all(AGENT, [step("x")], effect(done, "x")))
    assert caught.value.refusal.rule == f"dependency.{what}"
    assert done == []


def test_an_effect_that_fails_is_closed_as_failed() -> None:
    log = Log()

    async def broken() -> tuple[str, bool, dict[str, Any]]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(Crossing(Policy(), log).cross_all(AGENT, [step("x")], broken))
    assert phases(log, "x") == ["intent:allow::", "outcome:allow:failed:ZeroDivisionError"]


def test_no_steps_are_no_decision() -> None:
    with pytest.raises(ValueError, match="decision"):
        asyncio.run(Crossing(Policy(), Log()).cross_all(AGENT, [], effect([], "x")))


def test_the_recorded_digest_is_that_of_the_whole_policy_input() -> None:
    policy, log = Policy(), Log()
    crossing = Crossing(policy, log, {"run": "r", "read": ["src/**"], "kinds": ("a", Ruling.HOLD)})
    asyncio.run(crossing.cross_all(AGENT, [step("x", fact=True, size=3, words="é")], effect([], "x")))
    assert log.events[0].input_digest == digest(policy.asked[0].model_dump(mode="json"))
