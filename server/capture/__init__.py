"""The NNsight server: an OpenAI-compatible API that also captures activations.

It imports the library, never the pool.
"""
