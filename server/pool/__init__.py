"""The pool: one process a workflow run that starts, owns and supervises model servers and spreads requests."""
