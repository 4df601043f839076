"""`fastscalar.compile`: a function of one row is recorded once and replayed over rows.

A program knows the engine; it knows nothing of nets.
"""
