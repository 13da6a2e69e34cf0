"""Model servers on another machine: put there, started there, reached through a tunnel, and taken away again.

From the outside in: `deploy` and `undeploy` carry out what `make` asks for, over a `host` that `ssh` reaches or that
`skypilot` rents. There a `keeper` holds the servers, as the pool does on this machine; here a `tunnel` leads to them.
`deployment` is the record of what stands, which a run follows. Both ends pass connections on through a `relay`. It
imports the library and the pool, and nothing of the workflow.
"""
