# What an agent asks for, and who answers. It may ask; it never approves, and never learns where the ceiling is:
# a request beyond it is held like any other, and the answer is refused to the person.
package vestibule

needed := scope_facts if input.action == "scope.request"

scope_facts := {
	"is": {"path_rule": "", "path_ok": true, "tool_allowed": true, "why_given": true},
	"one_of": {"answer": ["", "granted"]},
	"any": {},
	"reason": {
		"path_rule": "path",
		"path_ok": "path",
		"tool_allowed": "context.tool",
		"why_given": "scope.no_reason",
		"answer": "scope.refused",
	},
	"after": {"path_ok": "path_rule"},
}

hold contains "scope.request" if {
	input.action == "scope.request"
	input.facts.answer == ""
}

needed := answer_facts if input.action == "question.answer"

answer_facts := {
	"is": {
		"is_agent": false,
		"eligible": true,
		"binding_current": true,
		"expired": false,
		"open": true,
		"reason_given": true,
	},
	"one_of": {"self_approval": ["never", "recorded"]},
	"any": {"is_requester": "boolean", "within_ceiling": "boolean"},
	"reason": {
		"is_agent": "review.agent",
		"self_approval": "review.self_approval",
		"eligible": "review.not_eligible",
		"binding_current": "review.stale",
		"expired": "review.expired",
		"open": "review.closed",
		"reason_given": "review.no_reason",
	},
	"after": {"open": "expired"},
}

deny contains "review.self_approval" if {
	input.action == "question.answer"
	input.resource.choice == "grant"
	input.facts.is_requester == true
	input.facts.self_approval != "recorded"
}

deny contains "scope.ceiling" if {
	input.action == "question.answer"
	input.resource.choice == "grant"
	not input.facts.within_ceiling == true
}

deny contains "review.agent" if {
	input.action == "question.answer"
	not input.subject.kind == "person"
}

deny contains "review.choice" if {
	input.action == "question.answer"
	not answer_choice
}

answer_choice if input.resource.choice in {"grant", "refuse"}
