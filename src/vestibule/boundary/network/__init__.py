"""The network crossing: which names exist inside a sandbox. There is no route; no other name leads anywhere."""
