"""Inbound: what phones send, whose it is, and what is answered automatically."""
