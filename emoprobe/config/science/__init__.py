"""The sections of the configuration that can change a byte of a result; their keys enter the digests of its files."""
