"""The host crossing: what processes inside do, seen from the kernel, matched, decided."""
