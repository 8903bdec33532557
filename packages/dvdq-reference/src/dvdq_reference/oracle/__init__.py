"""DVD-Quant's mathematics in float64, one equation group a file: the truth that tests compare kernels against.

Read in this order: ``affine`` (Eq. 1-2), ``packing``, ``bgr`` (Eq. 3-8, Alg. 1), ``hadamard``, ``arq`` (Eq. 10) with
its ``gaussian`` clip, ``linear`` (the integer product), ``bit_switching`` (Eq. 11), ``clip_search`` and
``smoothing`` (Eq. 9 and the baselines), ``moments`` and ``feedback`` (beyond the paper), ``recipe`` (a whole linear)
and ``bounds`` (how far a float32 implementation may be off).
"""
