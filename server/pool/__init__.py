"""The pool: one process a workflow run that starts, monitors and stops model servers and spreads requests.

From the outside in: `pool` listens to clients (`protocol`), `jobs` and `steering` make files, `fleets` knows which
servers an experiment needs, `turns` lets the servers of one model run at a time, a `fleet` spreads requests over
`worker`s, and a `launcher` (`local_process`, `slurm.job`) starts a server. The pool imports the library, and nothing of
the workflow.
"""
