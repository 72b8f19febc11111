# What leaves a sandbox by name. Facts are computed by the egress gateway: the name and port are a listener of this
# run's own, so they are exact; `name_rule` is "" when the ClientHello (or nothing, where no TLS is expected) says the
# same, `address_rule` when the name leads to an address that may be dialled, `budget_rule` when there is room.
package vestibule

needed := connect_facts if input.action == "network.connect"

connect_facts := {
	"is": {
		"listed": true,
		"program_rule": "",
		"name_rule": "",
		"address_rule": "",
		"budget_rule": "",
		"cleared": true,
	},
	"one_of": {},
	"any": {"learned": "boolean", "learn_allowed": "boolean"},
	"reason": {
		"listed": "network.host",
		"program_rule": "network",
		"name_rule": "network",
		"address_rule": "network",
		"budget_rule": "network",
		"cleared": "labels.clearance",
	},
	"after": {
		"program_rule": "listed",
		"name_rule": "listed",
		"address_rule": "listed",
		"budget_rule": "listed",
	},
}

# Learning lets through what nobody listed yet, so it is for the operator to allow.
deny contains "network.learn" if {
	input.action == "network.connect"
	not input.facts.learned == false
	not input.facts.learn_allowed == true
}

# A connection is an outward effect: untrusted input and data that is not public never leave without a person.
hold contains "labels.rule_of_two" if {
	input.action == "network.connect"
	not trusted
	not public
}

hold contains "labels.rule_of_two" if {
	input.action == "network.connect"
	not labelled
}

needed := resolve_facts if input.action == "network.resolve"

resolve_facts := {
	"is": {"name_rule": "", "listed": true},
	"one_of": {},
	"any": {},
	"reason": {"name_rule": "network", "listed": "network.host"},
	"after": {"listed": "name_rule"},
}
