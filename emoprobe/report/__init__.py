"""What a person reads: figures, statements with their verdicts, the pages of experiments and studies.

It imports `analysis`, `results` and `config`.
"""
