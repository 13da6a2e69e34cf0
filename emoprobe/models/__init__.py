"""Model sources, hardware, decoder layers, the residual stream and token positions.

Imports `config` and `results`.
"""
