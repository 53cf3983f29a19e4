"""Damaged and made-up bytes for everything that reads bytes: only the engine's own errors may come out.

    make fuzz MINUTES=10 SEED=7

targets.py says what is read and begins from what; captures.py makes what a server might send, which must be understood
the same way with and without the fast path; __main__.py runs them for a while and keeps what fails below
tests/golden/fuzz/, where tests/engine/test_fuzz.py reads it again, each time.
"""
