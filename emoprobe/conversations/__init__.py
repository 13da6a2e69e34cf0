"""How a conversation becomes the tokens that a model is given. Imports `results` and `models`."""
