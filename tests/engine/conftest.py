"""Property tests: a busy machine is no failure, and what fails once is printed so that it can be run again."""

from hypothesis import settings

settings.register_profile("everest", deadline=None, print_blob=True)
settings.load_profile("everest")
