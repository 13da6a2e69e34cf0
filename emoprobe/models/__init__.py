"""Models: where they come from, where their layers are, and positions in their token sequences.

It imports `config` and `results`.
"""
