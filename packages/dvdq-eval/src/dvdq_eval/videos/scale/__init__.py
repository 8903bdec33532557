"""Many workers on one machine or a cluster, by Ray, which is optional."""
