"""Answers that are kept so that a repeated request is not done twice."""
