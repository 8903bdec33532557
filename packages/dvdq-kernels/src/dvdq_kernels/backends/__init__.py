"""One folder a backend; each has the functions of :class:`dvdq_kernels.registry.Operators`, none imports another."""
