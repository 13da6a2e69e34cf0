"""Linear probes: what can be read off the activations, tested over the units that the labels belong to.

A cell is one layer, hook point and position. In reading order: `source` and `design` say what the rows are,
`experiment` goes through the cells, `targets` gather what `valence`, `correct` and `variant` find there, `directions`
and `transfer` describe it. It imports `config`, `results`, the ids of `tasks`, and PyTorch.
"""
