"""What a workflow asks of the library: digests, checks before a run, provenance, progress, failures.

It imports every other part of the library but `analysis` and `report`; it knows nothing of Snakemake.
"""
