// The outputs of a warp, from the totals that `epilogue.cuh` speaks of to memory, with little beside the arithmetic.
#pragma once

// Two outputs side by side, and four.
struct alignas(2 * sizeof(OUT)) Pair {
    uint32 word[sizeof(OUT) / 2];
};
struct alignas(4 * sizeof(OUT)) Quad {
    Pair pair[2];
};

DEVICE Pair paired(float first, float second) {
    const OUT values[2] = {converted<OUT>(first), converted<OUT>(second)};
    Pair pair;
    memcpy(&pair, values, sizeof(pair));
    return pair;
}

// Of the lane whose number differs in the lowest bit.
DEVICE Pair of_neighbour(Pair mine) {
    UNROLL for (int i = 0; i < static_cast<int>(sizeof(OUT) / 2); ++i)
        mine.word[i] = __shfl_xor_sync(0xFFFFFFFF, mine.word[i], 1);
    return mine;
}

// __ldg of numbers of 16 bits too.
DEVICE float unchanged(const float* from) { return __ldg(from); }
template <typename T>
DEVICE T unchanged(const T* from) {
    return T{__ldg(&from->bits)};
}

// Applies what a whole row shares, adds the bias and stores. `total` counts 1 / unit where there is one part.
//
// Lanes 2 i and 2 i + 1 have four columns in each of two tiles. They exchange halves, so that each stores four columns
// of one tile, and a warp whole sectors of 32 bytes.
template <int N>
DEVICE void write_outputs(const float (&total)[N][4], float unit, const Fragment& at, const Linear& of) {
    static_assert(N % 2 == 0, "tiles are stored in pairs");
    float s[2], r[2];
    UNROLL for (int half = 0; half < 2; ++half) {
        const int row = at.row_of(half, of);
        s[half] = PARTED ? 1.0f : __ldg(of.x_scale + row) * unit;
        r[half] = !GROUPED && HAS_ZERO ? -__ldg(of.code_sum + row) : 0.0f;
    }
    // Addresses and bounds are made once, so that what differs from tile to tile is a constant in the instruction.
    const int odd = threadIdx.x % 2, columns = of.out_features - at.column, stored_columns = columns - 6 * odd;
    const float* const scale = of.scale + at.column;
    const int16* const zero = of.zero + at.column;
    const BIAS* const bias = of.bias + at.column;
    OUT* const out = of.out + static_cast<int64>(at.row) * of.out_features + at.column + 6 * odd;
    UNROLL for (int j = 0; j < N; j += 2) {
        float y[2][2][2];
        UNROLL for (int k = 0; k < 4; ++k) {
            const int tile = k / 2, i = k % 2, column = 8 * (j + tile) + i;
            const bool there = column < columns;
            const float d = !GROUPED && there ? __ldg(scale + column) : 1.0f;
            const float z = !GROUPED && HAS_ZERO && there ? centred(__ldg(zero + column)) : 0.0f;
            const float shift = HAS_BIAS && there ? to_float(unchanged(bias + column)) : 0.0f;
            UNROLL for (int half = 0; half < 2; ++half) {
                float value = total[j + tile][2 * half + i] * s[half];
                if (!GROUPED && HAS_ZERO) value = __fmaf_rn(r[half], z, value);
                y[half][tile][i] = GROUPED ? value + shift : __fmaf_rn(value, d, shift);
            }
        }
        UNROLL for (int half = 0; half < 2; ++half) {
            const Pair low = paired(y[half][0][0], y[half][0][1]), high = paired(y[half][1][0], y[half][1][1]);
            const Pair kept = odd ? high : low, taken = of_neighbour(odd ? low : high);
            const Quad quad = odd ? Quad{{taken, kept}} : Quad{{kept, taken}};
            if (at.row + 8 * half >= of.tokens) continue;
            OUT* const to = out + half * 8 * static_cast<int64>(of.out_features) + 8 * j;
            // A branch at run time holds back the loads of later tiles, whose registers a grouped weight needs.
            if (GROUPED ? of.out_features % 4 == 0 : FOURS) {
                if (8 * j < stored_columns) *reinterpret_cast<Quad*>(to) = quad;
            } else {
                OUT from[4];
                memcpy(from, &quad, sizeof(quad));
                UNROLL for (int i = 0; i < 4; ++i)
                    if (8 * j + i < stored_columns) to[i] = from[i];
            }
        }
    }
}
