"""Configuration of an experiment: the keys, the reader of YAML and JSON files, and error messages.

The lowest layer of the library. Imports nothing else of it but `text`.
"""
