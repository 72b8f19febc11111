# What the agent may read, write and run through the context endpoint.
# Paths are normalised before they come here; `path_rule` names what made one impossible, "" if nothing did.
package vestibule

needed := read_facts if input.action in {"context.read", "context.list", "context.search"}

read_facts := {
	"is": {
		"path_rule": "",
		"path_ok": true,
		"tool_allowed": true,
		"in_read": true,
		"control_file": false,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"path_rule": "path",
		"path_ok": "path",
		"tool_allowed": "context.tool",
		"in_read": "context.read.scope",
		"control_file": "context.read.control_file",
	},
	"after": {"path_ok": "path_rule", "in_read": "path_ok"},
}

# `in_read_or_new`: adding a file that exists where the agent cannot see it would overwrite it unseen.
# `partial`: of this file the agent sees a part only, so a change would replace what it has not seen.
needed := write_facts if input.action == "context.write"

write_facts := {
	"is": {
		"path_rule": "",
		"path_ok": true,
		"tool_allowed": true,
		"in_write": true,
		"in_read_or_new": true,
		"partial": false,
		"protected": false,
		"control_file": false,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"path_rule": "path",
		"path_ok": "path",
		"tool_allowed": "context.tool",
		"in_write": "context.write.scope",
		"in_read_or_new": "context.write.unseen",
		"partial": "context.write.partial",
		"protected": "context.write.protected",
		"control_file": "context.write.control_file",
	},
	"after": {"path_ok": "path_rule", "in_write": "path_ok", "in_read_or_new": "path_ok", "partial": "path_ok"},
}

needed := exec_facts if input.action == "context.exec"

exec_facts := {
	"is": {"tool_allowed": true, "command_allowed": true},
	"one_of": {},
	"any": {},
	"reason": {"tool_allowed": "context.tool", "command_allowed": "context.exec.command"},
	"after": {"command_allowed": "tool_allowed"},
}

needed := call_facts if {
	input.action == "context.call"
	not input.resource.server
}

call_facts := {
	"is": {"tool_known": true, "tool_allowed": true},
	"one_of": {},
	"any": {},
	"reason": {"tool_known": "context.tool_unknown", "tool_allowed": "context.tool"},
	"after": {"tool_allowed": "tool_known"},
}
