"""The model servers: the pool that runs them on demand, and the NNsight server."""
