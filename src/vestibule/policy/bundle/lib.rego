# How a request is decided. Read this file first: the others only fill in `needed`, `deny` and `hold`.
#
#   needed  the facts an action needs. Each fact has the value it must have (`is`), the values it may have
#           (`one_of`) or only a type (`any`), and the reason given when it is otherwise. `after` names a
#           fact to be judged first: no objection is raised while that one fails.
#   deny    further reasons against
#   hold    reasons to ask a person
#
# Nothing is allowed because no rule spoke against it: every required fact must be there and as it must be.
package vestibule

default decision := {"verdict": "deny", "reasons": ["policy.undefined"]}

decision := {"verdict": "deny", "reasons": deny} if {
	count(deny) > 0
} else := {"verdict": "hold", "reasons": hold} if {
	permit
	count(hold) > 0
} else := {"verdict": "allow", "reasons": []} if {
	permit
}

permit if {
	count(needed) > 0
	count(unmet) == 0
}

met contains name if {
	some name, rule in needed
	input.facts[name] == rule.is
}

met contains name if {
	some name, rule in needed
	input.facts[name] in rule.one_of
}

met contains name if {
	some name, rule in needed
	type_name(input.facts[name]) == rule.any
}

unmet := object.keys(needed) - met

deny contains "policy.unknown_action" if not needed

# A fact that is missing or of another type is a deny, whatever the other facts say.
deny contains "policy.fact_missing" if {
	some name in unmet
	not well_typed(needed[name], input.facts[name])
}

deny contains reason(needed[name], input.facts[name]) if {
	some name in unmet
	well_typed(needed[name], input.facts[name])
	not needed[name].after in unmet
}

well_typed(rule, fact) if type_name(fact) == type_name(rule.is)

well_typed(rule, fact) if type_name(fact) == type_name(rule.one_of[0])

# A fact that names a rule of the same family is itself the reason: `path.traversal` rather than `path`.
reason(rule, fact) := fact if {
	is_string(fact)
	startswith(fact, concat("", [rule.reason, "."]))
	regex.match(`^[a-z][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)+$`, fact)
	count(fact) <= 200
} else := rule.reason
