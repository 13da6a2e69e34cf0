"""Linear probes: what can be read off the activations, tested over the units that the labels belong to.

A cell is one layer, hook point and position. In reading order: `activation_source` and `row_codes` say what the rows
are, `probe_design` what is tested and how it is judged; `all_probes` goes through the cells, `position` probes one with
the weights and scores that `discriminant` solves for in `cells`; `targets` gather what `valence`, `correct` and
`variant` find there, by `cell_choice`; `directions` and `transfer` describe it. It imports `config`, `results`, the ids
of `conversations`, and PyTorch; `probe_design` does without PyTorch.
"""
