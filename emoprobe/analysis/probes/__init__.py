"""Linear probes: what can be read off the activations, with honest baselines."""
