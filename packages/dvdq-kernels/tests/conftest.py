"""One hypothesis profile: the same examples every time, and as many as a minute allows."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "dvdq", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dvdq")
