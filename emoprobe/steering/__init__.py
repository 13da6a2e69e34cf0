"""Steering as files: which trajectories there are under which edits, the directions, the requests and their scores.

It imports `config`, `results`, `tasks`, `models` and, of `analysis`, what is compared with what.
"""
