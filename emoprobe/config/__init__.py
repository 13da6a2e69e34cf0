"""An experiment's configuration: what every key is, reading it from files, and readable errors.

The lowest layer of the library: it imports nothing else of it.
"""
