"""The pool: one process a workflow run that starts, owns and supervises model servers and spreads requests.

From the outside in: `pool` listens to clients (`protocol`), `jobs` makes files, `fleets` knows which servers an
experiment needs, `turns` lets one model after the other stand, a `fleet` spreads requests over `worker`s, and a
`launcher` (`local_process`, `slurm_job`, `endpoint`) brings a server up. It imports the library, and nothing of the
workflow.
"""
