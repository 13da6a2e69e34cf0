"""Steering conditions, directions, and requests for steered trajectories.

Imports `config`, `conversations`, `models` and `results`.
"""
