"""Answer extraction from completions, and comparison with the gold answer.

Imports `config`.
"""
