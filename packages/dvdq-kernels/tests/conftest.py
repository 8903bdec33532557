"""One hypothesis profile: the same examples every time, and as many as a minute allows. Nothing is remembered."""

import pytest
from hypothesis import HealthCheck, settings

from dvdq_kernels.registry import forget

settings.register_profile(
    "dvdq", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dvdq")


@pytest.fixture(autouse=True)
def _asked_again() -> None:
    """Which backend runs may depend on what a test puts in place."""
    forget()
