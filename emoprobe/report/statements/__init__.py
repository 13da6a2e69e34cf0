"""The sentences of a report, each with its verdict and the numbers that it follows from; a module for each subject."""
