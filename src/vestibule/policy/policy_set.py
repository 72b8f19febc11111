"""The decider: every layer is asked apart, and the strictest answer stands.

Rules it keeps:
1. `decide` never raises. Whatever goes wrong (an exception, a time-out, an answer of another shape, an
   input that has no canonical form) is a deny with reason `policy.error` or `policy.input`.
2. No answer is a deny: a layer that is undefined for a request denies it (`policy.undefined`).
3. A layer below can only tighten: answers are joined by strictness, outside Rego.
4. A remembered answer is used only for byte-identical input under the same digest; time is never part
   of the input (it enters as booleans in `facts`). Errors are not remembered, nor is what was refused unread.
"""

from __future__ import annotations

import marshal
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vestibule.core.base import Noun
from vestibule.core.canonical import canonical_json
from vestibule.core.errors import DependencyDown
from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Ruling, Verdict, strictest, strictest_ruling
from vestibule.policy import lint
from vestibule.policy.engine import VERSION, Answer, EngineError, Program
from vestibule.policy.explain import places, smallest_change
from vestibule.policy.layers import Layer, layers_digest, organisation_layers, repository_layer, shipped_layer
from vestibule.policy.opa import OpaAddress, OpaPrograms
from vestibule.policy.opa import version as opa_version
from vestibule.policy.refusals import order, refusals_for
from vestibule.policy.trial import QUIET_INPUT
from vestibule.policy.worker import Worker

CACHE_ENTRIES = 4096
MAX_INPUT_BYTES = 256 * 1024
REMEMBERED_BYTES = 16 * 1024
"""The longest input whose answer is remembered: an agent chooses what it asks, and the memory is the supervisor's."""
TIMEOUT_SECONDS = 5.0
SHIPPED_NAME = "shipped"
_LONE_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")
_SCALARS = frozenset((str, bool, int, type(None)))
_COLLECTIONS = frozenset((dict, list, tuple))
_REINSTALL = "Run `vestibule policy lint`; install vestibule again if its own files were changed."


class _Program(Protocol):
    """One layer, wherever it is evaluated."""

    def answer(self, document: Mapping[str, Any], /) -> Answer: ...


Programs = Sequence[tuple[str, _Program]]


class LayerAnswer(Noun):
    """What one layer said, for `policy explain`. `error` is empty when it answered."""

    layer: str
    ruling: Ruling
    reasons: tuple[str, ...]
    error: str = ""


class Explanation(Noun):
    """A verdict with what led to it.

    `deciding_facts` are those whose change alone takes a reason away; of an allow, those that would turn it.
    """

    verdict: Verdict
    layers: tuple[LayerAnswer, ...]
    deciding_facts: tuple[str, ...]
    places: dict[str, tuple[str, ...]] = {}
    """Where each reason stands: `layer: file:line`."""
    change: dict[str, Any] | None = None
    """The fewest facts, with their values, that turn the verdict; None when none was found."""
    turned: Verdict | None = None
    """The verdict with that change."""


class PolicySet:
    """Implements `core.ports.Decider`. Thread-safe."""

    def __init__(
        self, layers: Sequence[Layer], *, opa: OpaAddress | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """Asks the engine in this process, or the OPA server at `opa`.

        Raises:
            ConfigError: a layer is not fit to decide.
            DependencyDown: `dependency.policy`: a layer or the engine does not answer.
        """
        for layer in layers:
            if layer.name != SHIPPED_NAME:  # the shipped bundle is linted by the tests it is released with
                lint.require_fit(layer)
        self.layers = tuple(layers)
        self._opa = opa
        self._digest = layers_digest(self.layers, opa_version(opa) if opa else VERSION)
        self._worker: Worker[Programs] = Worker(self._compile, timeout_seconds=timeout_seconds)
        self._cache: OrderedDict[bytes, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._prove()

    @classmethod
    def load(
        cls,
        organisation: Sequence[Path | str] = (),
        repository: Mapping[str, bytes] | None = None,
        *,
        opa: OpaAddress | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> PolicySet:
        """The shipped bundle, the operator's `policy:` folders and `.vestibule/policy/*.rego` of the base commit.

        `repository` maps a path to the bytes it has in the base commit; other files in it are left aside.

        Raises:
            ConfigError: a layer says something impossible (exit 2, with file and line).
            DependencyDown: `dependency.policy`: a layer cannot be read or is empty (exit 4).
        """
        layers = [shipped_layer(), *organisation_layers([Path(item).expanduser() for item in organisation])]
        own = repository_layer(repository or {})
        if own is not None:
            layers.append(own)
        return cls(layers, opa=opa, timeout_seconds=timeout_seconds)

    @property
    def digest(self) -> str:
        """`sha256:…` over the engine's version and every file that takes part."""
        return self._digest

    def decide(self, request: PolicyInput) -> Verdict:
        """The strictest of all layers. Never raises."""
        key = input_key(request)
        known = self._cache.get(key) if key else None
        if known is not None:
            return known
        try:
            document = _document(request, key)
        except Exception:  # noqa: BLE001 - an input without one canonical form is denied, whatever is wrong with it
            return self._deny("policy.input", request)
        try:
            answers = self._ask(document)
            verdict = self._join(answers, request)
        except Exception:  # noqa: BLE001 - the promise of this function is to deny
            return self._deny("policy.error", request)
        if key and len(key) <= REMEMBERED_BYTES and not any(answer.error for answer in answers):
            self._remember(key, verdict)
        return verdict

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        with self._lock:
            self._cache[key] = verdict
            if len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)

    def explain(self, request: PolicyInput) -> Explanation:
        """The verdict, each layer's answer, and the facts that decided. Asks without the cache."""
        verdict = self.decide(request)
        try:
            document = request.model_dump(mode="json")
            answers = self._ask(document)
        except Exception as error:  # noqa: BLE001 - explained like any other failure
            failed = LayerAnswer(layer="all", ruling=Ruling.DENY, reasons=("policy.error",), error=str(error))
            return Explanation(verdict=verdict, layers=(failed,), deciding_facts=())
        deciding = []
        for name, value in request.facts.items():
            others = (request.model_copy(update={"facts": {**request.facts, name: other}}) for other in _others(value))
            if any(self._matters(verdict, self.decide(other)) for other in others):
                deciding.append(name)
        found = smallest_change(self.layers, request, self.decide)
        return Explanation(
            verdict=verdict,
            layers=tuple(answers),
            deciding_facts=tuple(deciding),
            places=self._places(answers),
            change=found[0] if found else None,
            turned=found[1] if found else None,
        )

    def _places(self, answers: Sequence[LayerAnswer]) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for answer in answers:
            for reason in answer.reasons:
                named = places(self.layers, answer.layer, reason)
                found.setdefault(reason, []).extend(f"{answer.layer}: {place}" for place in named)
        return {reason: tuple(named) for reason, named in found.items()}

    def close(self) -> None:
        """Stops the engine's thread; later decisions deny. Idempotent."""
        self._worker.close()

    @staticmethod
    def _matters(verdict: Verdict, other: Verdict) -> bool:
        """Whether a changed fact turned an allow, or took a reason away from a hold or deny."""
        if verdict.allowed:
            return not other.allowed
        return other.ruling.strictness < verdict.ruling.strictness or set(other.reasons) < set(verdict.reasons)

    def _prove(self) -> None:
        """Every layer compiles in this process, and the set denies what no policy names."""
        try:
            answers = self._ask(QUIET_INPUT)
        except Exception as error:  # noqa: BLE001 - an engine that cannot be asked is down
            self.close()
            raise DependencyDown("policy", "The policy engine does not answer.", fact=str(error)[:300]) from None
        if strictest_ruling(answer.ruling for answer in answers) is not Ruling.DENY:
            self.close()
            raise DependencyDown("policy", "The policy allows an action without a name.", fact="default deny is gone")
        broken = [
            answer
            for answer in answers
            if answer.error and (answer.layer == SHIPPED_NAME or answer.reasons != ("policy.undefined",))
        ]
        if broken:
            self.close()
            raise DependencyDown(
                "policy", f"The {broken[0].layer} policy does not run.", fact=broken[0].error, person=_REINSTALL
            )

    def _compile(self) -> Programs:
        if self._opa is not None:
            return list(OpaPrograms(self.layers, self._opa).programs)
        return [(layer.name, Program(layer.sources)) for layer in self.layers]

    def _ask(self, document: Mapping[str, object]) -> list[LayerAnswer]:
        found: list[LayerAnswer] = self._worker.ask(
            lambda programs: [_answer(name, program, document) for name, program in programs]
        )
        if len(found) != len(self.layers):
            raise EngineError("not every layer answered")
        return found

    def _join(self, answers: Sequence[LayerAnswer], request: PolicyInput) -> Verdict:
        if all(answer.ruling is Ruling.ALLOW for answer in answers) and answers:
            return Verdict(ruling=Ruling.ALLOW, reasons=(), policy_digest=self._digest)
        return strictest(
            Verdict(
                ruling=answer.ruling,
                reasons=order(answer.reasons),
                policy_digest=self._digest,
                refusals=refusals_for(order(answer.reasons), request, answer.layer, answer.ruling),
            )
            for answer in answers
        )

    def _deny(self, reason: str, request: PolicyInput) -> Verdict:
        return Verdict(
            ruling=Ruling.DENY,
            reasons=(reason,),
            policy_digest=self._digest,
            refusals=refusals_for((reason,), request, "shipped", Ruling.DENY),
        )


def input_key(request: PolicyInput) -> bytes:
    """Bytes that differ wherever the input differs, in a type or in the order of keys too; empty when there are none.

    Version 2 of the format writes every value out, so that equal inputs have equal bytes; it takes plain values only.
    """
    parts = (request.action, request.subject, request.resource, request.task, request.labels, request.facts)
    try:
        return marshal.dumps(parts, 2)
    except (ValueError, RecursionError):
        return b""


def _document(request: PolicyInput, key: bytes) -> dict[str, Any]:
    """The request as JSON. Raises ValueError or TypeError when it has no canonical form or is too large."""
    document: dict[str, Any] = {
        "action": request.action,
        "subject": request.subject,
        "resource": request.resource,
        "task": request.task,
        "labels": request.labels,
        "facts": request.facts,
    }
    if key and len(key) <= MAX_INPUT_BYTES and not _LONE_SURROGATE.search(key) and _is_plain(document):
        return document
    document = request.model_dump(mode="json")
    if len(canonical_json(document)) > MAX_INPUT_BYTES:
        raise ValueError("the input is too large")
    return document


def _is_plain(value: dict[str, Any] | list[Any] | tuple[Any, ...]) -> bool:
    """Whether everything in it is JSON as it stands, without floats."""
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return False
        items: Iterable[Any] = value.values()
    else:
        items = value
    for item in items:
        kind = type(item)
        if kind not in _SCALARS and not (kind in _COLLECTIONS and _is_plain(item)):
            return False
    return True


def _answer(name: str, program: _Program, document: Mapping[str, object]) -> LayerAnswer:
    try:
        answer: Answer = program.answer(document)
    except EngineError as error:
        return LayerAnswer(layer=name, ruling=Ruling.DENY, reasons=(error.reason,), error=str(error)[:300])
    except Exception as error:  # noqa: BLE001 - one layer's failure is that layer's deny
        return LayerAnswer(layer=name, ruling=Ruling.DENY, reasons=("policy.error",), error=str(error)[:300])
    return LayerAnswer.model_construct(layer=name, ruling=answer.ruling, reasons=answer.reasons, error="")


def _others(value: object) -> tuple[object, ...]:
    """Other values of the same kind, to see whether a fact matters."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, str):
        return tuple(other for other in ("", "allow", "recorded") if other != value)
    return ()
