"""Paths and records of the files of an experiment; `catalogue` declares the tables.

Readers that need another package import it inside a function. Imports `config`, `conversations` and `storage`.
"""
