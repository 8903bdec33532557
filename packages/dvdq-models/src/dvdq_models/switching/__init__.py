"""Bit widths that change from one denoising step to the next.

``schedule`` decides, ``denoising_loop`` knows which step a pass belongs to, ``hook`` brings both to a transformer, and
``tuning`` finds the threshold for a wanted average.
"""
