"""How hypothesis looks for counterexamples."""

from hypothesis import settings

# An example may take as long as it wants: on a busy machine any does once.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
