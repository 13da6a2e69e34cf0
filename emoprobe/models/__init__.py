"""Models: where they come from, what they run on, where their layers and residual stream are, positions of tokens.

It imports `config` and `results`.
"""
