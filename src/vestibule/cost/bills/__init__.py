"""Providers' own usage reports, each read strictly into the same lines."""
