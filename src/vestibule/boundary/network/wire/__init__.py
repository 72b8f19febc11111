"""What the outside sends to the egress gateway, parsed strictly."""
