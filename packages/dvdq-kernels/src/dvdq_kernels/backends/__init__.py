"""One folder a backend; each has the functions that :mod:`dvdq_kernels.ops` states, none imports another."""
