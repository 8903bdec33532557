// Grids that need only a row's extremes.
#include "rows.cuh"
#include "grid.cuh"

// Δ and z [rows] of each row of `parts` [rows, width]: one pass.
KERNEL(THREADS, 1) minmax(const WEIGHT* __restrict__ parts, float* __restrict__ scale, int16* __restrict__ zero, int64 rows,
                          int width, int levels, int symmetric) {
    Team team;
    const Range range = range_of(team, Share(team, parts, rows, width));
    if (team.place != 0 || team.row >= rows) return;
    const Grid grid = symmetric ? symmetric_grid(range.low, range.high, levels)
                                : grid_of_range(range.low, range.high, levels);
    store_grid(grid, scale + team.row, zero + team.row);
}
