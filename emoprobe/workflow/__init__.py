"""What a workflow asks of the library: targets, digests, checks before a run, provenance, progress, failures.

It imports `config`, `results`, `tasks` and `models`, and of `report` the list of figures and the closing summary. It
knows nothing of Snakemake.
"""
