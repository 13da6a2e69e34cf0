"""Figures, statements, and the pages of experiments and studies.

Imports `analysis`, `config` and `results`.
"""
