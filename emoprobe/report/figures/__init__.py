"""The figures of the report, in one style."""
