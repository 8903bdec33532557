"""What was measured, and how: ``python -m benchmarks`` from the tree's root lists what there is."""
