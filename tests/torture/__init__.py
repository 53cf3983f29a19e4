"""Random schemas and histories, with the server's own replica as the judge of what a restore must give.

    make torture MINUTES=20 SEED=7

history.py makes them up from a seed; tables.py, changes.py, definitions.py and contexts.py hold the features that
they are made of, each a small function; stand.py runs one against real servers; shrink.py cuts a failing one down.
"""
