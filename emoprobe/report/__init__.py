"""Figures, statements, and the pages of experiments and studies.

Imports `analysis`, `config`, `graders` and `results`.
"""
