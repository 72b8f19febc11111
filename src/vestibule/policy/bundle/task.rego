# Which runs may start, and who gets a task token.
package vestibule

# The role comes from the command or the trigger and is defined at the protected base commit, as all
# configuration is: the governed never governs. Isolation that was not proven up does not exist.
needed := admit_facts if input.action == "task.admit"

admit_facts := {
	"requester_known": {"is": true, "reason": "task.requester"},
	"author_trusted": {"is": true, "reason": "task.author"},
	"role_defined": {"is": true, "reason": "task.role"},
	"agent_defined": {"is": true, "reason": "task.agent"},
	"config_from_base": {"is": true, "reason": "task.config"},
	"walls_ok": {"is": true, "reason": "task.walls"},
}

needed := token_facts if input.action == "token.issue"

token_facts := {"lease_live": {"is": true, "reason": "token.lease"}}
