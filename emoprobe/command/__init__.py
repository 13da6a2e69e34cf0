"""The command `emoprobe`, for what is no target of the workflow.

Imports `config`, `exchange`, `graders`, `report`, `results`, `stages` and `workflow`.
"""
