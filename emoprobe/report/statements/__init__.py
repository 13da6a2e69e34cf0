"""The sentences of a report, each with the verdict and the numbers that it follows from; one module a subject."""
