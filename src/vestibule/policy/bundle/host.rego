# What the runtime monitor saw inside a sandbox. A match of a known behaviour is a fact about the program that ran, with
# how grave it is: `critical` is denied, and a deny ends the sandbox; `warning` holds the change for a person; `notice`
# is recorded. Whatever the answer, a match is in the log and told to people: that is its obligation.
# `sound`: the monitor lost nothing and its answer can be believed.
package vestibule

needed := host_facts if input.action == "host.exec"

needed := host_facts if input.action == "host.open"

needed := host_facts if input.action == "host.connect"

needed := host_facts if input.action == "host.match"

host_facts := {
	"is": {"known": true, "sound": true},
	"one_of": {"severity": ["notice", "warning", "critical"]},
	"any": {},
	"reason": {
		"known": "host.unknown",
		"sound": "host.unsound",
		"severity": "host.unknown",
	},
	"after": {},
}

deny contains "host.behaviour" if {
	input.action in host_actions
	input.facts.severity == "critical"
}

hold contains "host.suspicious" if {
	input.action in host_actions
	input.facts.severity == "warning"
}

host_actions := {"host.exec", "host.open", "host.connect", "host.match"}
