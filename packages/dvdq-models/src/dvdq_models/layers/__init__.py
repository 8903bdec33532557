"""The layer that takes a linear's place, and what it is made of.

``linear`` is the layer, ``encoding`` makes its codes of a weight, ``activation_state`` is what the layers of one model
share while it runs, ``prefetching`` brings second sets of codes from main memory, ``casting`` says which casts keep
every number.
"""
