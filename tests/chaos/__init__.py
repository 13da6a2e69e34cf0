"""Faults, injected for real, and what comes of each: `python -m tests.chaos [NAME ...]` prints one JSON line a fault.

Where the fault is in an answer, servers are stubs that misbehave on demand; where it is a process's, they are real vLLM
and NNsight servers. Every fault ends in a finished experiment whose trajectories are those of an undisturbed run, after
a plain re-run where the workflow itself was hit, or in one clear error.
"""
