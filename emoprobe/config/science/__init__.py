"""The sections of the configuration that can change a byte of a result; their keys are part of its files' digests."""
