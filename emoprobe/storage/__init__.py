"""Activations in object storage: shards of many folders, pushed, checked, read by ranges and pulled with obstore.

Imported only where storage is configured. Imports `config` and `results`.
"""
