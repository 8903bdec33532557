"""TeaCache: skip the blocks of denoising steps at which the output is expected to change little (arXiv 2411.19108)."""

from dvdq_models.teacache.coefficients import Coefficients, names
from dvdq_models.teacache.decision import CacheDecision
from dvdq_models.teacache.enable import disable_teacache, enable_teacache, teacache_trace
from dvdq_models.teacache.fit import Changes, fit_coefficients, record_changes

__all__ = [
    "CacheDecision",
    "Changes",
    "Coefficients",
    "disable_teacache",
    "enable_teacache",
    "fit_coefficients",
    "names",
    "record_changes",
    "teacache_trace",
]
