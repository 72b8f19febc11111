# What may flow where. The Rule of Two: untrusted input, sensitive data and an outward effect never all three
# without a person. What is not known to be trusted is untrusted; what is not known to be public is sensitive.
package vestibule

trusted if input.labels.integrity in {"operator", "member"}

public if input.labels.confidentiality == "public"

# Both halves are there and are words that we know.
labelled if {
	input.labels.integrity in {"operator", "member", "outsider", "web"}
	input.labels.confidentiality in {"public", "internal", "secret"}
}

outward if {
	upstream_call
	not input.facts.outward == false
}

# What the operator says stays inside the organisation, at a server cleared for what the run has read: nothing leaves,
# so two of the three are there at most. Its arguments need trusted text all the same.
stays_inside if {
	input.facts.inside == true
	cleared
}

# By the label of now: the fact was found when the call was planned, and another call may have read since.
cleared if {
	input.facts.cleared == true
	not input.resource.clearance
}

cleared if {
	input.facts.cleared == true
	rank[input.labels.confidentiality] <= rank[input.resource.clearance]
}

rank := {"public": 0, "internal": 1, "secret": 2}

# Approved by a person, for exactly this call.
approved if input.facts.approved == true

hold contains "labels.rule_of_two" if {
	input.action in {"context.call"}
	outward
	not trusted
	not public
	not stays_inside
	not approved
}

# An effect of a run about which nobody knows what it has read.
hold contains "labels.rule_of_two" if {
	input.action in {"context.call"}
	outward
	not labelled
	not approved
}

# Arguments of an outward effect that come from text nobody vouches for.
hold contains "labels.provenance" if {
	input.action in {"context.call"}
	outward
	not input.facts.arguments_trusted == true
	not approved
}

# Data beyond what the other side is cleared for does not flow there, whoever agrees.
deny contains "labels.clearance" if {
	input.action in {"context.call"}
	outward
	not cleared
}
