# Who may decide at a review gate. Agents never do; the requester approves only where that is recorded.
package vestibule

needed := decide_facts if input.action == "review.decide"

decide_facts := {
	"is": {
		"is_agent": false,
		"eligible": true,
		"binding_current": true,
		"expired": false,
		"gate_open": true,
		"reason_given": true,
	},
	"one_of": {"self_approval": ["never", "recorded"]},
	"any": {"is_requester": "boolean"},
	"reason": {
		"is_agent": "review.agent",
		"self_approval": "review.self_approval",
		"eligible": "review.not_eligible",
		"binding_current": "review.stale",
		"expired": "review.expired",
		"gate_open": "review.closed",
		"reason_given": "review.no_reason",
	},
	"after": {"gate_open": "expired"},
}

deny contains "review.self_approval" if {
	input.action == "review.decide"
	input.resource.choice == "approve"
	input.facts.is_requester == true
	input.facts.self_approval != "recorded"
}

# Not only by the fact: whatever is not a person has no say here.
deny contains "review.agent" if {
	input.action == "review.decide"
	not input.subject.kind == "person"
}

deny contains "review.choice" if {
	input.action == "review.decide"
	not review_choice
}

review_choice if input.resource.choice in {"approve", "request-changes", "reject"}
