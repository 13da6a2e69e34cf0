"""The files of an experiment: where they lie, and one record each that reads, writes and checks them.

It imports nothing else of the library; tables are declared in `catalogue`.
"""
