"""The audit log: append-only, Merkle-hashed, signed, verifiable offline."""
