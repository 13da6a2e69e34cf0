"""The sections of the configuration that change no result.

They enter no digest, so no change here makes anything again.
"""
