# Who may decide at a review gate. Agents never do; the requester approves only where that is recorded.
package vestibule

needed := decide_facts if input.action == "review.decide"

decide_facts := {
	"is_agent": {"is": false, "reason": "review.agent"},
	"is_requester": {"any": "boolean"},
	"self_approval": {"one_of": ["never", "recorded"], "reason": "review.self_approval"},
	"eligible": {"is": true, "reason": "review.not_eligible"},
	"binding_current": {"is": true, "reason": "review.stale"},
	"expired": {"is": false, "reason": "review.expired"},
	"gate_open": {"is": true, "reason": "review.closed", "after": "expired"},
	"reason_given": {"is": true, "reason": "review.no_reason"},
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
	not input.resource.choice in {"approve", "request-changes", "reject"}
}
