"""Features: directions that a sparse autoencoder finds in the residual stream, and which of them differ with the tone.

In reading order: `tokens` gives the captured tokens in shards, `halves` divides them, `autoencoder` is what takes them
apart and puts them together, `formats`, `training` and `sources` say where one comes from, `quality` and `splicing` how
good it is; `ranking` puts features up and `differences` tests them, beside `baselines`, for the whole `experiment`;
`contexts` shows where they are active. It imports `config`, `results`, `models`, the ids of `tasks`, and PyTorch;
`splicing` runs the model itself.
"""
