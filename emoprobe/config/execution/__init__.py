"""The sections of the configuration that say how a run is carried out and change no result.

They are part of no digest, so no change here makes anything again.
"""
