"""The nouns. No I/O, no clock, no globals: everything here is a value or a protocol."""
