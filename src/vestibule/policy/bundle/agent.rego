# Whose new work is paused, and who may let it go on. A pause takes rights away, so it asks little; a release gives
# them back, so it asks for a person.
package vestibule

needed := pause_facts if input.action == "agent.pause"

pause_facts := {
	"is": {
		"version_known": true,
		"reason_given": true,
		"permitted": true,
	},
	"one_of": {"cause": ["spend", "person"]},
	"any": {},
	"reason": {
		"version_known": "agent.unknown",
		"reason_given": "agent.no_reason",
		"permitted": "agent.permission",
		"cause": "agent.cause",
	},
	"after": {},
}

# The watch over spend acts for spend alone, a person for a person's reasons, and an agent never.
deny contains "agent.cause" if {
	input.action == "agent.pause"
	not pause_by_whom
}

pause_by_whom if {
	input.subject.kind == "system"
	input.facts.cause == "spend"
}

pause_by_whom if {
	input.subject.kind == "person"
	input.facts.cause == "person"
}

needed := release_facts if input.action == "agent.release"

release_facts := {
	"is": {
		"paused": true,
		"reason_given": true,
		"permitted": true,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"paused": "agent.not_paused",
		"reason_given": "agent.no_reason",
		"permitted": "agent.permission",
	},
	"after": {},
}

deny contains "agent.person" if {
	input.action == "agent.release"
	not input.subject.kind == "person"
}
