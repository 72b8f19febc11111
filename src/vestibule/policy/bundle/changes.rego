# What may leave the sandbox as a proposed change, and when it merges.
package vestibule

needed := propose_facts if input.action == "change.propose"

propose_facts := {
	"is": {"walls_stood": true, "gate_configured": true},
	"one_of": {"findings": ["allow", "hold"]},
	"any": {"finding_rules": "array"},
	"reason": {
		"findings": "change.findings",
		"walls_stood": "change.walls",
		"gate_configured": "change.no_gate",
	},
	"after": {},
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
	"is": {
		"approved": true,
		"binding_current": true,
		"verified": true,
		"base_is_ancestor": true,
		"target_unmoved_or_mergeable": true,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"approved": "merge.unapproved",
		"binding_current": "merge.stale",
		"verified": "merge.unverified",
		"base_is_ancestor": "merge.base",
		"target_unmoved_or_mergeable": "merge.conflict",
	},
	"after": {"target_unmoved_or_mergeable": "base_is_ancestor"},
}
