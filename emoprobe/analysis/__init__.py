"""From trajectories and activations to numbers: behaviour, paired tests, power, the analysis plan, probes.

It imports `config`, `results` and `tasks`; it draws nothing and writes no file.
"""
