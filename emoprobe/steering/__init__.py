"""Steering conditions, directions, and requests for steered trajectories.

Imports `analysis`, `config`, `conversations`, `models` and `results`.
"""
