"""Library functions for the rules: targets, digests, checks before a run, provenance, progress and failures.

Imports nothing of Snakemake; modules that watch a run (`live_servers`, `lost_jobs`) receive its objects.
Imports `analysis`, `config`, `conversations`, `graders`, `models`, `report`, `results` and `steering`.
"""
