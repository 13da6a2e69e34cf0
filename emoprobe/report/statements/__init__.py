"""The sentences of a report, one module for each part of it; each follows from numbers in the tables."""
