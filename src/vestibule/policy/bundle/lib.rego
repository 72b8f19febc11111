# How a request is decided. Read this file first: the others only fill in `needed`, `deny` and `hold`.
#
#   needed  the facts an action needs, as one table:
#             is      the value that each of these facts must have; never empty
#             one_of  the values that a fact may have
#             any     only the type that a fact must have
#             reason  the reason given when a fact is otherwise; a row for every fact of `is` and `one_of`
#             after   a fact to be judged first: no objection is raised while that one fails
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

# A table without a row for each kind permits nothing: what is undefined here is no permission.
permit if {
	object.subset(input.facts, needed.is)
	every name, values in needed.one_of {
		input.facts[name] in values
	}
	every name, kind in needed.any {
		type_name(input.facts[name]) == kind
	}
}

unmet contains name if {
	some name, value in needed.is
	not input.facts[name] == value
}

unmet contains name if {
	some name, _ in needed.one_of
	not name in fitting
}

unmet contains name if {
	some name, _ in needed.any
	not name in fitting
}

# `not` stands before plain comparisons, names and bound variables only: before `in` or a call, engines differ on
# what is undefined inside (OPA drops the rule, rego-cpp lets it fire).
fitting contains name if {
	some name, values in needed.one_of
	input.facts[name] in values
}

fitting contains name if {
	some name, kind in needed.any
	type_name(input.facts[name]) == kind
}

well_typed contains name if {
	some name in unmet
	type_name(input.facts[name]) == type_name(needed.is[name])
}

well_typed contains name if {
	some name in unmet
	type_name(input.facts[name]) == type_name(needed.one_of[name][0])
}

deny contains "policy.unknown_action" if {
	not permit
	not needed
}

# A fact that is missing or of another type is a deny, whatever the other facts say.
deny contains "policy.fact_missing" if {
	not permit
	count(unmet - well_typed) > 0
}

deny contains reason(needed.reason[name], input.facts[name]) if {
	not permit
	some name in well_typed - waiting
}

waiting contains name if {
	some name in well_typed
	needed.after[name] in unmet
}

# A fact that names a rule of the same family is itself the reason: `path.traversal` rather than `path`.
reason(rule, fact) := fact if {
	is_string(fact)
	startswith(fact, concat("", [rule, "."]))
	regex.match(`^[a-z][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)+$`, fact)
	count(fact) <= 200
} else := rule
