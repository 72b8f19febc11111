"""Errors a person meets. Each says what happened, why, and what to do next, and knows its exit code.

Exit codes (contract): 0 done · 1 our bug · 2 usage or configuration · 3 held for a person ·
4 refused by policy or guard (a dependency or wall that is down included) · 5 the agent failed or
changed nothing · 6 a verification failed.
"""

from __future__ import annotations

from vestibule.core.refusal import NextStep, Refusal

OK, BUG, USAGE, HELD, REFUSED, AGENT_FAILED, VERIFICATION_FAILED = range(7)


class VestibuleError(Exception):
    """Base of every error meant for people."""

    exit_code = BUG

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        self.what = what
        self.why = why
        self.next_step = next_step
        super().__init__(" ".join(part for part in (what, why, next_step) if part))


class UsageError(VestibuleError):
    """The call cannot be carried out as given."""

    exit_code = USAGE


class ConfigError(UsageError):
    """A configuration file says something impossible. `where` is `file:line` when known."""

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        self.where = where
        advice = next_step or (f"Correct {where}." if where else "Correct the configuration.")
        super().__init__(f"{where}: {what}" if where else what, why=why, next_step=advice)


class Refused(VestibuleError):
    """Policy or a guard said no. Carries the typed refusal."""

    exit_code = REFUSED

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason, why=refusal.fact, next_step=refusal.next.person)


class DependencyDown(Refused):
    """Something a guard depends on is missing, broken or slow. Rule `dependency.<name>`; always a deny."""

    def __init__(self, name: str, reason: str, *, fact: str = "", person: str = "", agent: str = "") -> None:
        self.name = name
        super().__init__(
            Refusal(
                rule=f"dependency.{name}",
                reason=reason,
                fact=fact,
                next=NextStep(
                    agent=agent or "Stop here; a person has to repair the installation.",
                    person=person or "Run `vestibule doctor` and repair what it reports as down.",
                ),
            )
        )


class AgentFailed(VestibuleError):
    """The agent ended without a usable change."""

    exit_code = AGENT_FAILED


class VerificationFailed(VestibuleError):
    """Evidence does not hold."""

    exit_code = VERIFICATION_FAILED


_KINDS: dict[str, type[VestibuleError]] = {
    kind.__name__: kind for kind in (VestibuleError, UsageError, ConfigError, AgentFailed, VerificationFailed)
}


def encode_error(error: VestibuleError) -> dict[str, str]:
    """An error as plain JSON, so that it survives the process that raised it."""
    if isinstance(error, Refused):
        name = error.name if isinstance(error, DependencyDown) else ""
        return {"kind": "Refused", "refusal": error.refusal.model_dump_json(), "dependency": name}
    kind = type(error).__name__ if type(error).__name__ in _KINDS else "VestibuleError"
    return {"kind": kind, "what": error.what, "why": error.why, "next": error.next_step}


def decode_error(data: dict[str, str]) -> VestibuleError:
    """The error that `encode_error` wrote."""
    if data["kind"] == "Refused":
        refused = Refusal.model_validate_json(data["refusal"])
        if data["dependency"]:
            return DependencyDown(
                data["dependency"],
                refused.reason,
                fact=refused.fact,
                person=refused.next.person,
                agent=refused.next.agent,
            )
        return Refused(refused)
    return _KINDS[data["kind"]](data["what"], why=data["why"], next_step=data["next"])
