"""Wire formats of model providers: strict parsers without I/O."""
