"""Answer extraction from completions, and comparison with the gold answer.

Imports nothing else of the library.
"""
