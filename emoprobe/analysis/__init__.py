"""From trajectories and activations to numbers and conclusions: behaviour, paired tests, power, probes, steering.

`conclusion` has the types of verdicts and reasons, `limits` those of what an experiment cannot show. It imports
`config`, `results`, `conversations` and `graders`; it draws nothing and writes no file.
"""
