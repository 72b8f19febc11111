# What an agent asks for, and who answers. It may ask; it never approves, and never learns where the ceiling is:
# a request beyond it is held like any other, and the answer is refused to the person.
package vestibule

needed := scope_facts if input.action == "scope.request"

scope_facts := {
	"path_rule": {"is": "", "reason": "path"},
	"path_ok": {"is": true, "reason": "path", "after": "path_rule"},
	"tool_allowed": {"is": true, "reason": "context.tool"},
	"why_given": {"is": true, "reason": "scope.no_reason"},
	"answer": {"one_of": ["", "granted"], "reason": "scope.refused"},
}

hold contains "scope.request" if {
	input.action == "scope.request"
	input.facts.answer == ""
}

needed := answer_facts if input.action == "question.answer"

answer_facts := {
	"is_agent": {"is": false, "reason": "review.agent"},
	"is_requester": {"any": "boolean"},
	"self_approval": {"one_of": ["never", "recorded"], "reason": "review.self_approval"},
	"eligible": {"is": true, "reason": "review.not_eligible"},
	"binding_current": {"is": true, "reason": "review.stale"},
	"expired": {"is": false, "reason": "review.expired"},
	"open": {"is": true, "reason": "review.closed", "after": "expired"},
	"reason_given": {"is": true, "reason": "review.no_reason"},
	"within_ceiling": {"any": "boolean"},
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
	not input.resource.choice in {"grant", "refuse"}
}
