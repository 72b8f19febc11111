# What may leave the sandbox as a proposed change, and when it merges.
package vestibule

needed := propose_facts if input.action == "change.propose"

propose_facts := {
	"findings": {"one_of": ["allow", "hold"], "reason": "change.findings"},
	"finding_rules": {"any": "array"},
	"walls_stood": {"is": true, "reason": "change.walls"},
	"gate_configured": {"is": true, "reason": "change.no_gate"},
}

deny contains "policy.fact_missing" if {
	input.action == "change.propose"
	some rule in input.facts.finding_rules
	not is_string(rule)
}

# A good change is never allowed outright: it waits for people at the review gate.
hold contains "gate.review" if input.action == "change.propose"

hold contains "change.findings" if {
	input.action == "change.propose"
	input.facts.findings == "hold"
}

# An approval is for exactly what was seen: another head, tree, base or policy voids it.
needed := merge_facts if input.action == "merge"

merge_facts := {
	"approved": {"is": true, "reason": "merge.unapproved"},
	"binding_current": {"is": true, "reason": "merge.stale"},
	"verified": {"is": true, "reason": "merge.unverified"},
	"base_is_ancestor": {"is": true, "reason": "merge.base"},
	"target_unmoved_or_mergeable": {"is": true, "reason": "merge.conflict", "after": "base_is_ancestor"},
}
