"""Linear probes: what can be read off the activations, tested by the units that the labels belong to.

It imports `config`, `results` and the libraries for arrays. One cell is a layer, hook point and position.
"""
