"""Whether an attack got through, judged by what it got and what arrived, never by an error code."""

from __future__ import annotations

from typing import Any

from tests.attacks.walls.outside import Outside

ALLOWED_MAY_HEAR = frozenset(
    {"N07", "N23", "N25", "N26", "N29", "N31", "B-tunnel", "B-redirect", "E-A1", "E-M2", "E-L1", "E-L2", "B-protocols"}
)
"""Cases that talk to an allowed host on the way: only what reaches anybody else counts."""

BUDGET = 1 << 20


def judge(
    case: str, said: dict[str, Any], outside: Outside, changed: dict[str, str], after: dict[str, list[str]]
) -> dict[str, Any]:
    """`{"opened": [...], "how": [...]}`."""
    opened = [f"holds {what}" for what in said["gained"]]
    text = "\n".join(said["heard"])
    labels = outside.heard(text)
    arrived = {where for name, where in outside.arrived if name == case}
    if case == "E-M1":
        return {"opened": ["the gateway answers"] if "gateway answers" in text else [], "how": said["how"]}
    allowed = case in ALLOWED_MAY_HEAR and case not in ("E-L1", "E-L2", "B-protocols", "N29")
    if allowed:
        labels.discard("allowed")
        arrived.discard("allowed")
    if case == "N30":
        arrived.discard("allowed")
        if outside.bytes.get(case, 0) > BUDGET * 1.2:
            opened.append(f"{outside.bytes[case] >> 10} KiB arrived")
        labels.clear()
    opened += [f"heard {label}" for label in sorted(labels)]
    opened += [f"reached {where}" for where in sorted(arrived)]
    opened += [f"reached a resolver with {name[:40]}" for name in outside.lookups if f"case-{case.lower()}-" in name]
    if case in changed:
        opened.append(changed[case])
    opened += after.get(case, [])
    return {"opened": opened, "how": list(dict.fromkeys(said["how"]))[:12], "ms": said.get("ms", 0)}
