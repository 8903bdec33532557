"""One folder a backend: its ``__init__`` says what it can do, none imports another.

Its operators have the parameters that :mod:`dvdq_kernels.ops` states.
"""
