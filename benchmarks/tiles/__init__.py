"""The tuner: how tiles are searched for, and what it has to know of each backend."""
