"""The files of an experiment: where they lie, and one record each that reads, writes and checks them.

It imports `config` for names only; tables are declared in `catalogue`.
"""
