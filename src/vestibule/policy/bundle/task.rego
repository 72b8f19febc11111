# Which runs may start, and who gets a task token.
package vestibule

# The role comes from the command or the trigger and is defined at the protected base commit, as all
# configuration is: the governed never governs. Isolation that was not proven up does not exist.
# Who may start a run is who may write to the repository anyway: a run costs money and hands out work.
needed := admit_facts if input.action == "task.admit"

admit_facts := {
	"is": {
		"requester_known": true,
		"author_trusted": true,
		"role_defined": true,
		"agent_defined": true,
		"config_from_base": true,
		"walls_ok": true,
		"rounds_left": true,
		"role_earned": true,
		"agent_paused": "",
	},
	"one_of": {
		"trigger": ["cli", "console", "resume", "rework", "answer", "forge_comment", "forge_label", "schedule", "api"],
		"permission": ["write", "maintain", "admin"],
		"permission_source": ["local_user", "forge_api", "installation"],
	},
	"any": {"is_bot": "boolean", "paid": "boolean"},
	"reason": {
		"requester_known": "task.requester",
		"trigger": "task.trigger",
		"permission": "task.permission",
		"permission_source": "task.permission_source",
		"author_trusted": "task.author",
		"role_defined": "task.role",
		"agent_defined": "task.agent",
		"config_from_base": "task.config",
		"walls_ok": "task.walls",
		"rounds_left": "task.rounds",
		"role_earned": "task.role_earned",
		"agent_paused": "task.agent_paused",
	},
	"after": {"role_earned": "role_defined"},
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
	established_by[input.facts.trigger]
	not established
}

established if input.facts.permission_source in established_by[input.facts.trigger]

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

token_facts := {
	"is": {"lease_live": true},
	"one_of": {},
	"any": {},
	"reason": {"lease_live": "token.lease"},
	"after": {},
}
