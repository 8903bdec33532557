// What lanes have, brought together.
#pragma once

constexpr unsigned ALL_LANES = 0xFFFFFFFF;

struct Sum {
    template <typename T>
    DEVICE T operator()(T a, T b) const {
        return a + b;
    }
};
struct Larger {
    template <typename T>
    DEVICE T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};

// Combines N values of LANES neighbouring lanes, both powers of two. Lane l of these then has those from l N / LANES on,
// N / LANES of them or one: each exchange halves what a lane still holds, or else how many hold different parts of it.
template <int LANES, typename T, int N, class Combine>
DEVICE void reduce(T (&value)[N], Combine combine) {
    int held = N;
    UNROLL for (int mask = LANES / 2; mask > 0; mask /= 2) {
        if (held == 1) {
            value[0] = combine(value[0], __shfl_xor_sync(ALL_LANES, value[0], mask));
            continue;
        }
        held /= 2;
        const bool upper = threadIdx.x & mask;
        UNROLL for (int i = 0; i < N / 2; ++i) {
            if (i >= held) break;
            const T kept = upper ? value[i + held] : value[i], given = upper ? value[i] : value[i + held];
            value[i] = combine(kept, __shfl_xor_sync(ALL_LANES, given, mask));
        }
    }
}
