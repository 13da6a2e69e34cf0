"""Functions that a rule's script calls: read files of an experiment's folder, compute, write files to it.

`folder` runs all stages in a folder of any origin.
Imports `analysis`, `config`, `conversations`, `explorer`, `models`, `report`, `results`, `steering` and `workflow`.
"""
