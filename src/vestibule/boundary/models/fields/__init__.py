"""Which fields of a request may pass, one allow-list a format. Pure."""
