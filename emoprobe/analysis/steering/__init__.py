"""What edits of the residual stream do to the answers: effects beside control directions, tests, mediation.

From the table of steered trajectories alone, so that whoever made them can be judged; imports nothing of a server.
"""
