"""From every token's activations to autoencoders, and to features that differ: a module each for what a rule makes."""
