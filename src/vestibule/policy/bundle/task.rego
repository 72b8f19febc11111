# Which runs may start, and who gets a task token.
package vestibule

# The role comes from the command or the trigger and is defined at the protected base commit, as all
# configuration is: the governed never governs. Isolation that was not proven up does not exist.
# Who may start a run is who may write to the repository anyway: a run costs money and hands out work.
needed := admit_facts if input.action == "task.admit"

admit_facts := {
	"requester_known": {"is": true, "reason": "task.requester"},
	"trigger": {
		"one_of": [
			"cli", "console", "resume", "rework", "answer",
			"forge_comment", "forge_label", "schedule", "api",
		],
		"reason": "task.trigger",
	},
	"permission": {"one_of": ["write", "maintain", "admin"], "reason": "task.permission"},
	"permission_source": {
		"one_of": ["local_user", "forge_api", "installation"],
		"reason": "task.permission_source",
	},
	"is_bot": {"any": "boolean"},
	"paid": {"any": "boolean"},
	"author_trusted": {"is": true, "reason": "task.author"},
	"role_defined": {"is": true, "reason": "task.role"},
	"agent_defined": {"is": true, "reason": "task.agent"},
	"config_from_base": {"is": true, "reason": "task.config"},
	"walls_ok": {"is": true, "reason": "task.walls"},
	"rounds_left": {"is": true, "reason": "task.rounds"},
	"role_earned": {"is": true, "reason": "task.role_earned", "after": "role_defined"},
}

# How a requester's permission can be established on each way in. What an event, a comment or a token says of
# itself is a claim, and a claim never counts.
established_by := {
	"cli": {"local_user"},
	"console": {"local_user", "forge_api"},
	"resume": {"local_user", "forge_api"},
	"rework": {"local_user", "forge_api"},
	"answer": {"local_user", "forge_api"},
	"forge_comment": {"forge_api", "installation"},
	"forge_label": {"forge_api", "installation"},
	"schedule": {"local_user", "installation"},
	"api": {"local_user", "forge_api", "installation"},
}

deny contains "task.permission_source" if {
	input.action == "task.admit"
	sources := established_by[input.facts.trigger]
	not input.facts.permission_source in sources
}

# A program acts only as the installation that the forge vouches for, and a person never acts as one.
deny contains "task.bot" if {
	input.action == "task.admit"
	input.facts.is_bot != false
	input.facts.permission_source != "installation"
}

deny contains "task.bot" if {
	input.action == "task.admit"
	input.facts.permission_source == "installation"
	input.facts.is_bot != true
}

needed := token_facts if input.action == "token.issue"

token_facts := {"lease_live": {"is": true, "reason": "token.lease"}}
