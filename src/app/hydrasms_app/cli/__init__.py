"""The command line: every command but serve, db and an offline verification is a call to the running core."""

from hydrasms_app.cli.program import app, main

__all__ = ["app", "main"]
