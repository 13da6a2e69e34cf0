"""Models: where they come from, where their layers and residual stream are, positions in their token sequences.

It imports `config` and `results`.
"""
