"""Sandboxes whose names lead to servers on this machine's loopback."""
