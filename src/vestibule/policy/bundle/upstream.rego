# Calls to upstream MCP servers, and what may flow where (labels.rego has the flow rules).
# `pin_rule` is "" when description and schema are what a person pinned; `argument_rule` is "" when they fit.
package vestibule

upstream_call if {
	input.action == "context.call"
	input.resource.server
}

needed := upstream_facts if upstream_call

upstream_facts := {
	"is": {"tool_known": true, "tool_allowed": true, "argument_rule": "", "arguments_ok": true},
	"one_of": {"pin_rule": ["", "upstream.unpinned", "upstream.changed"]},
	"any": {
		"outward": "boolean",
		"cleared": "boolean",
		"arguments_trusted": "boolean",
		"approved": "boolean",
	},
	"reason": {
		"tool_known": "context.tool_unknown",
		"tool_allowed": "upstream.tool",
		"argument_rule": "upstream.argument",
		"arguments_ok": "upstream.argument",
		"pin_rule": "upstream.pin",
	},
	"after": {"tool_allowed": "tool_known", "arguments_ok": "argument_rule"},
}

# Nobody looked at what the server now says of its tool: quarantined, whatever a person said of one call.
hold contains input.facts.pin_rule if {
	input.action == "context.call"
	upstream_call
	input.facts.pin_rule != ""
}
