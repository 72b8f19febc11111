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
