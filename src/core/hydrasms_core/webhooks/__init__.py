"""Webhooks: what is pushed to customers' own servers."""
