// Rows of a weight, or groups of a row, each of which TEAM threads share: a power of two from 4 on. Up to 32 are lanes
// of one warp, more are a whole block.
#pragma once
#include "vectors.cuh"
#include "reduction.cuh"

constexpr int LANES = least(TEAM, 32);
// Bytes of shared memory in which a whole block adds up, twice, so that one barrier is enough.
constexpr int SCRATCH = TEAM > 32 ? 2 * TEAM : 0;

DEVICE float infinity() { return __int_as_float(0x7F800000); }

struct Team {
    int64 row = (static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) / TEAM;
    int place = static_cast<int>(threadIdx.x % TEAM);
    int turn = 0;

    // Each of up to four values combined over the team, for all of its threads.
    template <int N, class Combine>
    DEVICE void combine(double (&value)[N], Combine of) {
        reduce<LANES>(value, of);
        const int lane = static_cast<int>(threadIdx.x % 32);
        if constexpr (SCRATCH == 0) {
            const double mine = value[0];
            const int first = lane / LANES * LANES;
            UNROLL for (int i = 0; i < N; ++i) value[i] = __shfl_sync(ALL_LANES, mine, first + i * (LANES / N));
        } else {
            double* const sums = reinterpret_cast<double*>(shared_memory()) + turn * (TEAM / 32 * 4);
            turn ^= 1;
            if (lane % (32 / N) == 0) sums[threadIdx.x / 32 * N + lane / (32 / N)] = value[0];
            __syncthreads();
            UNROLL for (int i = 0; i < N; ++i) {
                value[i] = sums[i];
                UNROLL for (int warp = 1; warp < TEAM / 32; ++warp) value[i] = of(value[i], sums[warp * N + i]);
            }
        }
    }
};

// What one thread has of a row: `count` times VECTOR values.
struct Share {
    const WEIGHT* first;
    int stride, count;

    // Of the row's `width` values; teams past the last row take that one again.
    DEVICE Share(const Team& team, const WEIGHT* rows_of, int64 rows, int width)
        : first(rows_of + least(team.row, rows - 1) * width + team.place * VECTOR),
          stride(TEAM * VECTOR),
          count(static_cast<int>(parts_of(width - team.place * VECTOR, TEAM * VECTOR))) {}

    // Moves them to shared memory, neighbouring threads side by side; nobody else reads them there.
    DEVICE void stage(WEIGHT* memory) {
        WEIGHT* const to = memory + threadIdx.x * VECTOR;
        const int step = static_cast<int>(blockDim.x) * VECTOR;
#pragma unroll 4
        for (int k = 0; k < count; ++k) {
            WEIGHT value[VECTOR];
            load(value, first + k * stride);
            store(value, to + k * step);
        }
        first = to;
        stride = step;
    }

    template <class Each>
    DEVICE void for_each(Each each) const {
#pragma unroll 2
        for (int k = 0; k < count; ++k) {
            WEIGHT value[VECTOR];
            load(value, first + k * stride);
            UNROLL for (int i = 0; i < VECTOR; ++i) each(exact(value[i]));
        }
    }
};

struct Range {
    double low, high;
};

// The smallest and the largest value of a row.
DEVICE Range range_of(Team& team, const Share& share) {
    using Exact = decltype(exact(WEIGHT()));
    Exact most[2] = {-infinity(), -infinity()};
    share.for_each([&](Exact w) {
        most[0] = Larger()(most[0], -w);
        most[1] = Larger()(most[1], w);
    });
    double all[2] = {most[0], most[1]};
    team.combine(all, Larger());
    return {-all[0], all[1]};
}
