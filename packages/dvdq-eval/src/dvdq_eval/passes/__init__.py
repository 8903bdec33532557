"""One pass of a transformer, which latency and memory both measure: what runs, in which widths, and its size."""
