# What the agent may read, write and run through the context endpoint.
# Paths are normalised before they come here; `path_rule` names what made one impossible, "" if nothing did.
package vestibule

needed := read_facts if input.action in {"context.read", "context.list", "context.search"}

read_facts := {
	"path_rule": {"is": "", "reason": "path"},
	"path_ok": {"is": true, "reason": "path", "after": "path_rule"},
	"tool_allowed": {"is": true, "reason": "context.tool"},
	"in_read": {"is": true, "reason": "context.read.scope", "after": "path_ok"},
	"control_file": {"is": false, "reason": "context.read.control_file"},
}

# `in_read_or_new`: adding a file that exists where the agent cannot see it would overwrite it unseen.
needed := write_facts if input.action == "context.write"

write_facts := {
	"path_rule": {"is": "", "reason": "path"},
	"path_ok": {"is": true, "reason": "path", "after": "path_rule"},
	"tool_allowed": {"is": true, "reason": "context.tool"},
	"in_write": {"is": true, "reason": "context.write.scope", "after": "path_ok"},
	"in_read_or_new": {"is": true, "reason": "context.write.unseen", "after": "path_ok"},
	"protected": {"is": false, "reason": "context.write.protected"},
	"control_file": {"is": false, "reason": "context.write.control_file"},
}

needed := exec_facts if input.action == "context.exec"

exec_facts := {
	"tool_allowed": {"is": true, "reason": "context.tool"},
	"command_allowed": {"is": true, "reason": "context.exec.command", "after": "tool_allowed"},
}

needed := call_facts if {
	input.action == "context.call"
	not input.resource.server
}

call_facts := {
	"tool_known": {"is": true, "reason": "context.tool_unknown"},
	"tool_allowed": {"is": true, "reason": "context.tool", "after": "tool_known"},
}
