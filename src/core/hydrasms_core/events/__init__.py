"""Events: what happened, in order, for whoever follows it."""
