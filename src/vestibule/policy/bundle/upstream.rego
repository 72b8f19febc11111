# Calls to upstream MCP servers, and what may flow where (labels.rego has the flow rules).
# `pin_rule` is "" when description and schema are what a person pinned; `argument_rule` is "" when they fit.
package vestibule

upstream_call if {
	input.action == "context.call"
	input.resource.server
}

needed := upstream_facts if upstream_call

upstream_facts := {
	"tool_known": {"is": true, "reason": "context.tool_unknown"},
	"tool_allowed": {"is": true, "reason": "upstream.tool", "after": "tool_known"},
	"argument_rule": {"is": "", "reason": "upstream.argument"},
	"arguments_ok": {"is": true, "reason": "upstream.argument", "after": "argument_rule"},
	"pin_rule": {"one_of": ["", "upstream.unpinned", "upstream.changed"], "reason": "upstream.pin"},
	"outward": {"any": "boolean"},
	"cleared": {"any": "boolean"},
	"arguments_trusted": {"any": "boolean"},
	"approved": {"any": "boolean"},
}

# Nobody looked at what the server now says of its tool: quarantined, whatever a person said of one call.
hold contains input.facts.pin_rule if {
	upstream_call
	input.facts.pin_rule != ""
}
