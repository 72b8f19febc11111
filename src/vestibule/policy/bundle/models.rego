# Which model requests leave, and at what price. Unknown fields, models and prices are denials: a price
# that is not known is not zero, and nothing could be counted against the budget.
package vestibule

needed := request_facts if input.action == "model.request"

request_facts := {
	"field_rule": {"is": "", "reason": "model.field"},
	"fields_ok": {"is": true, "reason": "model.field", "after": "field_rule"},
	"model_allowed": {"is": true, "reason": "model.not_allowed"},
	"price_known": {"is": true, "reason": "model.unknown_price"},
	"budget_rule": {"is": "", "reason": "budget"},
	"budget_ok": {"is": true, "reason": "budget", "after": "budget_rule"},
}
