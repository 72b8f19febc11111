# Which model requests leave, and at what price. Unknown fields, models and prices are denials: a price
# that is not known is not zero, and nothing could be counted against the budget. `label_cleared`: what the run has
# read so far may go to this provider.
package vestibule

needed := request_facts if input.action == "model.request"

request_facts := {
	"is": {
		"field_rule": "",
		"fields_ok": true,
		"model_allowed": true,
		"price_known": true,
		"label_cleared": true,
		"budget_rule": "",
		"budget_ok": true,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"field_rule": "model.field",
		"fields_ok": "model.field",
		"model_allowed": "model.not_allowed",
		"price_known": "model.unknown_price",
		"label_cleared": "labels.model_clearance",
		"budget_rule": "budget",
		"budget_ok": "budget",
	},
	"after": {"fields_ok": "field_rule", "budget_ok": "budget_rule"},
}

# Which tool calls of a model reach its agent's program. A call of our own server ("context") is decided again, with
# its paths, where it crosses; a built-in tool crosses nowhere, so its paths are decided here by the same rules.
needed := tool_call_facts if input.action == "model.tool_call"

tool_call_facts := {
	"is": {
		"call_rule": "",
		"call_ok": true,
		"tool_known": true,
		"offered": true,
		"native_allowed": true,
		"arguments_ok": true,
		"path_rule": "",
		"control_file": false,
		"in_read": true,
		"in_write": true,
		"protected": false,
		"host_allowed": true,
	},
	"one_of": {},
	"any": {},
	"reason": {
		"call_rule": "model.call",
		"call_ok": "model.call",
		"tool_known": "model.call.tool",
		"offered": "model.call.not_offered",
		"native_allowed": "model.call.native",
		"arguments_ok": "model.call.arguments",
		"path_rule": "path",
		"control_file": "model.call.control_file",
		"in_read": "model.call.read",
		"in_write": "model.call.write",
		"protected": "model.call.protected",
		"host_allowed": "model.call.host",
	},
	"after": {"call_ok": "call_rule", "arguments_ok": "call_ok", "offered": "tool_known"},
}
