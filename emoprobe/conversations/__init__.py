"""Data sets, variants, requests, responses, and the rendering of a conversation to token ids.

Imports `config`, `graders`, `models` and `results`.
"""
