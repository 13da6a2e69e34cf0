"""Simulations: no kind of sentence may be false too often."""
