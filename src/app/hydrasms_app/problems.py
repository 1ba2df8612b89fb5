"""Failures that an operator can mend: shown as one line, never as a traceback."""


class Problem(Exception):
    """What is wrong and what to do about it, in one line."""


class NotYet(Problem):
    """What is missing now and may come without our doing, so that a server waits for it."""
