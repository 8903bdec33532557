// The grid of a range of values (Eq. 1), float64.
#pragma once

// The smallest normal float32.
constexpr double SMALLEST_SCALE = 0x1p-126;
constexpr double LARGEST_ZERO = 32767;

struct Grid {
    double scale, zero;
};

// The nearest integer, half to even: at 1.5 · 2^52 float64 holds the integers and nothing between them. Beyond 2^51,
// where only a clamp can follow, an integer nearby.
DEVICE double nearest(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

// Δ = (high - low) / levels, z = -round(low / Δ).
//
// A constant range c has Δ = |c| and z = 0 or 1, a zero one Δ = 1 and z = 0, so that both decode exactly. Δ is at least
// max(|low|, |high|) / (2^15 - 1), so that z fits 16 bits, and at least the smallest normal float32.
DEVICE Grid grid_of_range(double low, double high, double levels) {
    const double most = largest(fabs(low), fabs(high));
    if (most == 0) return {1, 0};
    if (low == high) return {largest(most, SMALLEST_SCALE), low < 0 ? 1.0 : 0.0};
    const double scale = largest(largest((high - low) / levels, most / LARGEST_ZERO), SMALLEST_SCALE);
    return {scale, -nearest(low / scale)};
}

// Δ = max|w| / (2^(b-1) - 1), z = 2^(b-1); Δ = 1 where all is zero.
DEVICE Grid symmetric_grid(double low, double high, double levels) {
    const double most = largest(fabs(low), fabs(high)), offset = (levels + 1) / 2;
    return {most == 0 ? 1 : largest(most / (offset - 1), SMALLEST_SCALE), offset};
}

DEVICE void store_grid(const Grid& grid, float* scale, int16* zero) {
    *scale = static_cast<float>(grid.scale);
    *zero = static_cast<int16>(grid.zero);
}
