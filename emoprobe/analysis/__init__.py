"""Statistics, conclusions and limits: from trajectories and activations to numbers. Writes no file.

`conclusion` defines verdicts with their reasons, `limits` the notes on what an experiment cannot show.
Imports `config`, `conversations`, `graders`, `models`, `results` and `steering`.
"""
