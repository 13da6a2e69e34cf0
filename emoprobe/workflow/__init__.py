"""What a workflow asks of the library: targets, digests, checks before a run, provenance, progress, failures.

It imports `config`, `results`, `tasks`, `models` and `steering`, of `analysis` the contrasts, and of `report` the list
of figures and the closing summary. It imports nothing of Snakemake; the modules that watch a run in progress
(`live_servers`, `lost_jobs`) are handed its objects.
"""
