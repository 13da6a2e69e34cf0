"""Processes that begin as copies of one that has imported what they need.

Imports are most of what a short command costs, and the tests run thousands of them: `snakemake`, the scripts of its
rules, the pool, NNsight servers. What a copy does, it does as the command would: with its arguments, environment, folder
and output, to its end or until it is killed. `template` is the process that is copied, `copy` how one is asked for, and
`inside` what a copied Snakemake and pool ask for in place of the processes that they would start. Where no template
runs, as for benchmarks and `make chaos`, processes are started.
"""
