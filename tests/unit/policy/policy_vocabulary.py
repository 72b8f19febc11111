"""The policy vocabulary as test data: for each action a request that is right in every fact."""

from __future__ import annotations

from typing import Any

from vestibule.core.ports import PolicyInput

PATH = {"path_ok": True, "path_rule": "", "tool_allowed": True, "control_file": False}
READ = {**PATH, "in_read": True}

GOOD: dict[str, dict[str, Any]] = {
    "task.admit": {
        **dict.fromkeys(
            ("requester_known", "role_defined", "agent_defined", "walls_ok", "config_from_base", "author_trusted"), True
        ),
        "trigger": "cli",
        "permission": "write",
        "permission_source": "local_user",
        "is_bot": False,
        "paid": True,
        "rounds_left": True,
        "role_earned": True,
        "agent_paused": "",
    },
    "agent.pause": {"cause": "person", "version_known": True, "reason_given": True, "permitted": True},
    "agent.release": {"paused": True, "reason_given": True, "permitted": True},
    "context.read": READ,
    "context.list": READ,
    "context.search": READ,
    "context.write": {**PATH, "in_write": True, "in_read_or_new": True, "partial": False, "protected": False},
    "context.exec": {"tool_allowed": True, "command_allowed": True},
    "context.call": {"tool_known": True, "tool_allowed": True},
    "model.request": {
        "fields_ok": True,
        "field_rule": "",
        "model_allowed": True,
        "price_known": True,
        "label_cleared": True,
        "budget_ok": True,
        "budget_rule": "",
    },
    "change.propose": {"findings": "allow", "finding_rules": [], "walls_stood": True, "gate_configured": True},
    "review.decide": {
        "is_agent": False,
        "is_requester": False,
        "self_approval": "never",
        "eligible": True,
        "binding_current": True,
        "gate_open": True,
        "expired": False,
        "reason_given": True,
    },
    "merge": dict.fromkeys(
        ("approved", "binding_current", "verified", "base_is_ancestor", "target_unmoved_or_mergeable"), True
    ),
    "token.issue": {"lease_live": True},
}

RESOURCES: dict[str, dict[str, Any]] = {
    "context.write": {"id": "src/a.py", "path": "src/a.py", "tool": "write_file"},
    "context.exec": {"id": "pytest -q", "program": "pytest", "argv": ["pytest", "-q"]},
    "review.decide": {"id": "gate-1", "choice": "approve"},
    "merge": {"id": "0" * 40, "target": "main"},
}

EXPECTED = {action: "hold" if action == "change.propose" else "allow" for action in GOOD}

# action, changed facts, the reasons that follow
OBJECTIONS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("task.admit", {"requester_known": False}, {"task.requester"}),
    ("task.admit", {"role_defined": False}, {"task.role"}),
    ("task.admit", {"agent_defined": False}, {"task.agent"}),
    ("task.admit", {"walls_ok": False}, {"task.walls"}),
    ("task.admit", {"config_from_base": False}, {"task.config"}),
    ("task.admit", {"author_trusted": False}, {"task.author"}),
    ("task.admit", {"rounds_left": False}, {"task.rounds"}),
    ("task.admit", {"role_earned": False}, {"task.role_earned"}),
    ("task.admit", {"agent_paused": "paused"}, {"task.agent_paused"}),
    ("task.admit", {"agent_paused": "task.agent_paused.evidence"}, {"task.agent_paused.evidence"}),
    ("task.admit", {"trigger": "dream"}, {"task.trigger"}),
    *(("task.admit", {"permission": level}, {"task.permission"}) for level in ("none", "read", "triage", "owner", "")),
    ("task.admit", {"permission_source": "claim"}, {"task.permission_source"}),
    ("task.admit", {"permission_source": "claim", "permission": "admin", "paid": False}, {"task.permission_source"}),
    ("task.admit", {"trigger": "forge_comment"}, {"task.permission_source"}),
    ("task.admit", {"trigger": "forge_label"}, {"task.permission_source"}),
    ("task.admit", {"permission_source": "forge_api"}, {"task.permission_source"}),
    ("task.admit", {"is_bot": True}, {"task.bot"}),
    ("task.admit", {"is_bot": True, "trigger": "forge_label", "permission_source": "forge_api"}, {"task.bot"}),
    ("task.admit", {"is_bot": False, "trigger": "forge_label", "permission_source": "installation"}, {"task.bot"}),
    *(
        (action, changed, reasons)
        for action in ("context.read", "context.list", "context.search")
        for changed, reasons in (
            ({"in_read": False}, {"context.read.scope"}),
            ({"control_file": True}, {"context.read.control_file"}),
            ({"tool_allowed": False}, {"context.tool"}),
            ({"path_ok": False, "path_rule": "path.traversal"}, {"path.traversal"}),
            ({"path_ok": True, "path_rule": "path.nul"}, {"path.nul"}),
            ({"path_ok": False}, {"path"}),
            ({"path_rule": "nonsense"}, {"path"}),
            ({"path_ok": False, "path_rule": "path.git", "in_read": False}, {"path.git"}),
        )
    ),
    ("context.write", {"in_write": False}, {"context.write.scope"}),
    ("context.write", {"in_read_or_new": False}, {"context.write.unseen"}),
    ("context.write", {"partial": True}, {"context.write.partial"}),
    ("context.write", {"protected": True}, {"context.write.protected"}),
    ("context.write", {"control_file": True}, {"context.write.control_file"}),
    ("context.write", {"tool_allowed": False}, {"context.tool"}),
    ("context.write", {"path_ok": False, "path_rule": "path.absolute"}, {"path.absolute"}),
    ("context.write", {"path_ok": False}, {"path"}),
    ("context.write", {"path_rule": "path.device"}, {"path.device"}),
    ("context.exec", {"tool_allowed": False}, {"context.tool"}),
    ("context.exec", {"command_allowed": False}, {"context.exec.command"}),
    ("context.call", {"tool_known": False, "tool_allowed": False}, {"context.tool_unknown"}),
    ("context.call", {"tool_known": False}, {"context.tool_unknown"}),
    ("context.call", {"tool_allowed": False}, {"context.tool"}),
    ("model.request", {"fields_ok": False}, {"model.field"}),
    ("model.request", {"fields_ok": False, "field_rule": "model.field.tools"}, {"model.field.tools"}),
    ("model.request", {"field_rule": "model.field.tools"}, {"model.field.tools"}),
    ("model.request", {"model_allowed": False}, {"model.not_allowed"}),
    ("model.request", {"price_known": False}, {"model.unknown_price"}),
    ("model.request", {"label_cleared": False}, {"labels.model_clearance"}),
    ("model.request", {"budget_ok": False}, {"budget"}),
    ("model.request", {"budget_ok": False, "budget_rule": "budget.usd"}, {"budget.usd"}),
    ("model.request", {"budget_rule": "budget.tokens"}, {"budget.tokens"}),
    ("change.propose", {"findings": "deny", "finding_rules": ["secret.known"]}, {"change.findings"}),
    ("change.propose", {"findings": "fine"}, {"change.findings"}),
    ("change.propose", {"walls_stood": False}, {"change.walls"}),
    ("change.propose", {"gate_configured": False}, {"change.no_gate"}),
    ("review.decide", {"is_agent": True}, {"review.agent"}),
    ("review.decide", {"is_requester": True}, {"review.self_approval"}),
    ("review.decide", {"self_approval": "always"}, {"review.self_approval"}),
    ("review.decide", {"eligible": False}, {"review.not_eligible"}),
    ("review.decide", {"binding_current": False}, {"review.stale"}),
    ("review.decide", {"expired": True}, {"review.expired"}),
    ("review.decide", {"expired": True, "gate_open": False}, {"review.expired"}),
    ("review.decide", {"gate_open": False}, {"review.closed"}),
    ("review.decide", {"reason_given": False}, {"review.no_reason"}),
    ("merge", {"approved": False}, {"merge.unapproved"}),
    ("merge", {"binding_current": False}, {"merge.stale"}),
    ("merge", {"verified": False}, {"merge.unverified"}),
    ("merge", {"base_is_ancestor": False}, {"merge.base"}),
    ("merge", {"target_unmoved_or_mergeable": False}, {"merge.conflict"}),
    ("token.issue", {"lease_live": False}, {"token.lease"}),
    ("agent.pause", {"version_known": False}, {"agent.unknown"}),
    ("agent.pause", {"reason_given": False}, {"agent.no_reason"}),
    ("agent.pause", {"permitted": False}, {"agent.permission"}),
    ("agent.pause", {"cause": "spend"}, {"agent.cause"}),
    ("agent.pause", {"cause": "whim"}, {"agent.cause"}),
    ("agent.release", {"paused": False}, {"agent.not_paused"}),
    ("agent.release", {"reason_given": False}, {"agent.no_reason"}),
    ("agent.release", {"permitted": False}, {"agent.permission"}),
]


def request(action: str, changed: dict[str, Any] | None = None, **parts: Any) -> PolicyInput:
    """A right request for `action`, with some facts changed."""
    kind = "person" if action in ("review.decide", "task.admit", "agent.pause", "agent.release") else "agent"
    whole: dict[str, Any] = {
        "action": action,
        "subject": {"id": "local:alice" if kind == "person" else "spiffe://example.com/run/r1/agent/a", "kind": kind},
        "resource": RESOURCES.get(action, {"id": "src/a.py"}),
        "task": {
            "run": "r1",
            "role": "backend",
            "read": ["src/**", "tests/**"],
            "write": ["src/**"],
            "tools": ["read_file", "write_file"],
            "commands": ["pytest"],
            "agent": {"name": "a", "adapter": "command", "model": "", "version": "1"},
            "requester": "local:bob",
        },
        "labels": {"integrity": "member", "confidentiality": "internal"},
        "facts": {**GOOD.get(action, {}), **(changed or {})},
    }
    return PolicyInput.model_validate({**whole, **parts})
