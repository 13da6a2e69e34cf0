"""The command `emoprobe`: tasks that are not targets of the workflow.

Imports `analysis`, `config`, `exchange`, `graders`, `report`, `results`, `stages` and `workflow`.
"""
