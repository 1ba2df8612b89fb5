"""Sealing: whose key the secrets in a database are sealed with."""
