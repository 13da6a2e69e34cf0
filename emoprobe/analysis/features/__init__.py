"""Features: directions that a sparse autoencoder finds in the residual stream, and which of them differ with the tone.

In reading order: `tokens` reads the captured tokens and halves them; `autoencoder` encodes and decodes them; `formats`,
`training` and `autoencoder_sources` load or train autoencoders, `quality` measures them; `differences` chooses features
and tests them, beside `baselines`, for the whole experiment in `feature_tests`; `contexts` shows where they are active.
It imports `config`, `results`, `models`, the ids of `conversations`, and PyTorch; `quality` runs the model itself.
"""
