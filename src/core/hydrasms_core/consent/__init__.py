"""Consent: which phones want no messages of which accounts."""
