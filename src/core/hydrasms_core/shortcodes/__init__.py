"""Shortcodes: the first word of a text, which decides whose text it is."""
