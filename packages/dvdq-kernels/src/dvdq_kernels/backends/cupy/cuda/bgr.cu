// Bounded-init grid refinement (Algorithm 1, Eq. 4-8) by brute force, with each row on the chip, float64.
#include "rows.cuh"
#include "grid.cuh"

// Of one row under one grid, d = q - z.
struct Fit {
    double dw, dd, d, error;  // Σ d w, Σ d², Σ d, Σ (w - Δ d)²
};

// Codes by Eq. 6. A product with the reciprocal misses ties by an ulp, at random; rounded to 2^-32, between which float64
// holds nothing at 1.5 · 2^20, they are ties again.
DEVICE Fit fit(Team& team, const Share& share, const Grid& grid, double levels) {
    const double reciprocal = 1 / grid.scale, least_step = -grid.zero, most_steps = levels - grid.zero;
    double sums[4] = {0, 0, 0, 0};
    share.for_each([&](double w) {
        double d = nearest(__fma_rn(w, reciprocal, 0x1.8p20) - 0x1.8p20);
        d = d > least_step ? d : least_step;
        d = d < most_steps ? d : most_steps;
        const double residual = __fma_rn(-grid.scale, d, w);
        sums[0] = __fma_rn(d, w, sums[0]);
        sums[1] = __fma_rn(d, d, sums[1]);
        sums[2] += d;
        sums[3] = __fma_rn(residual, residual, sums[3]);
    });
    team.combine(sums, Sum());
    return {sums[0], sums[1], sums[2], sums[3]};
}

// Δ' = Σ d w / Σ d² (Eq. 4), z' = clamp(round(mean(q) - mean(w) / Δ'), 0, levels) (Eq. 5).
DEVICE Grid refined(const Grid& grid, const Fit& of, double mean, double width, double levels) {
    const double least_squares = of.dd > 0 ? of.dw / of.dd : 0;
    const double scale = least_squares >= SMALLEST_SCALE ? least_squares : grid.scale;
    const double zero = nearest((of.d + width * grid.zero) / width - mean / scale);
    return {scale, least(largest(zero, 0.0), levels)};
}

// Whether a team of this warp, whose lanes stay together, is still `going`.
DEVICE bool any_in_warp(bool going) { return TEAM < 32 ? __any_sync(ALL_LANES, going) : going; }

// The first of the best Δ and z [rows] of each row of `parts` [rows, width]: for i = 0 … bounds - 1 the grid of the
// range, cut by i / (2 bounds) at both ends, is refined while the squared error falls by more than `tolerance`.
KERNEL(THREADS, 1) refine(const WEIGHT* __restrict__ parts, float* __restrict__ scale, int16* __restrict__ zero, int64 rows,
                          int width, int levels, int bounds, int max_rounds, double tolerance) {
    Team team;
    Share share(team, parts, rows, width);
    if constexpr (STAGED) share.stage(reinterpret_cast<WEIGHT*>(shared_memory() + SCRATCH));
    const Range range = range_of(team, share);
    double total[1] = {0};
    share.for_each([&](double w) { total[0] += w; });
    team.combine(total, Sum());
    const double mean = total[0] / width;

    Grid best = {0, 0};
    double least_error = infinity();
    for (int i = 0; i < bounds; ++i) {
        const double cut = static_cast<double>(i) / (2 * bounds) * (range.high - range.low);
        Grid grid = grid_of_range(range.low + cut, range.high - cut, levels);
        Fit now = fit(team, share, grid, levels);
        double error = now.error;
        bool going = team.row < rows;
        for (int round = 0; round < max_rounds && any_in_warp(going); ++round) {
            const Grid next = refined(grid, now, mean, width, levels);
            now = fit(team, share, next, levels);
            const bool better = going && now.error < error;
            going = better && error - now.error > tolerance * error;
            if (!better) continue;
            grid = next;
            error = now.error;
        }
        if (!(error < least_error)) continue;
        best = grid;
        least_error = error;
    }
    if (team.place == 0 && team.row < rows) store_grid(best, scale + team.row, zero + team.row);
}
