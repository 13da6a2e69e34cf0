"""Conversations of other tools: import from Inspect, lm-evaluation-harness and tables of messages, and export.

`inspect_ai` is an optional dependency.
Imports `analysis`, `config`, `graders` and `results`.
"""
