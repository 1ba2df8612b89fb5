"""Carriers: how messages leave for phones."""
