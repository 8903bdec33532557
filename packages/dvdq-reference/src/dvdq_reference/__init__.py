"""The words and the mathematics of DVD-Quant.

``dvdq_reference.spec`` is the vocabulary that every package shares (standard library only);
``dvdq_reference.oracle`` is the method itself in float64, slow and obvious, for tests and for readers.
"""

__version__ = "0.1.0"
