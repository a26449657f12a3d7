"""Settings for all tests."""

from hypothesis import settings

# The same examples every time: a red test is a changed program, and machines under load are slow.
settings.register_profile("damcrack", derandomize=True, deadline=None)
settings.load_profile("damcrack")
