"""From trajectories and activations to tables: behaviour, statistics, probes.

It imports `config`, `results` and `tasks`; it draws nothing.
"""
