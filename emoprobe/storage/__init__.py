"""Activations in object storage: shards of many folders, pushed, checked, read by ranges and pulled, on obstore.

It may import `emoprobe.config` and `emoprobe.results`; nothing imports it where no storage is used.
"""
