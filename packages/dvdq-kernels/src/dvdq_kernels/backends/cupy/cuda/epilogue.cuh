// What becomes of integer sums: Y[t,n] = Σ_c s[t,c] Δ[n,c] (sums - (z[n,c] - OFFSET) Σ_{k∈c} v) + bias[n].
//
// A warp holds 16 rows of the output and 8 N columns in N tiles, as mma and wgmma leave them: a lane has rows
// lane / 4 and + 8, of each tile the columns lane % 4 · 2 and + 1; registers 0 and 1 are the first row, 2 and 3 the other.
// Here: what each part is scaled by. `outputs.cuh` does what a whole row shares.
#pragma once

struct Linear {
    const float* x_scale;   // s [tokens, blocks]
    const float* code_sum;  // Σ s v [tokens] of one group, else Σ v [tokens, parts]
    const float* scale;     // Δ [out, groups]
    const int16* zero;      // z [out, groups], if HAS_ZERO, else it is OFFSET
    const BIAS* bias;       // [out], if HAS_BIAS
    OUT* out;               // Y [tokens, out]
    int tokens, out_features, parts, blocks, groups;
    int block_parts, group_parts;  // that share a scale
};
#define LINEAR_ARGUMENTS                                                                                              \
    const float *x_scale, const float *code_sum, const float *scale, const int16 *zero, const BIAS *bias, OUT *out, \
        int64 tokens, int64 out_features, int64 parts, int64 blocks, int64 groups
#define LINEAR                                                                                                   \
    Linear {                                                                                                     \
        x_scale, code_sum, scale, zero, bias, out, static_cast<int>(tokens), static_cast<int>(out_features),     \
            static_cast<int>(parts), static_cast<int>(blocks), static_cast<int>(groups),                         \
            static_cast<int>(parts) / static_cast<int>(blocks), static_cast<int>(parts) / static_cast<int>(groups) \
    }

// Where a lane's values belong: rows and columns past the end repeat the last one, and are not stored.
struct Fragment {
    int row, column;

    DEVICE Fragment(int64 first_row, int64 first_column)
        : row(static_cast<int>(first_row) + threadIdx.x % 32 / 4),
          column(static_cast<int>(first_column) + threadIdx.x % 4 * 2) {}
    DEVICE int row_of(int half, const Linear& of) const { return least(row + 8 * half, of.tokens - 1); }
    DEVICE int column_of(int tile, int i, const Linear& of) const {
        return least(column + 8 * tile + i, of.out_features - 1);
    }
};

// What stands `row` rows of `length` after `first`: one multiplication, 32 bits by 32, gives the address.
template <typename T>
DEVICE T at_row(const T* first, int row, int length) {
    const uint32 bytes = static_cast<uint32>(length) * sizeof(T);
    const uint64 offset = static_cast<uint64>(static_cast<uint32>(row)) * bytes;
    return __ldg(reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) + offset));
}

DEVICE float centred(int16 zero) { return static_cast<float>(zero - OFFSET); }

// The bits of 12582912.0f = 3 · 2^22. Adding |n| < 2^22 to them gives those of 12582912.0f + n: sums that start here
// become floats by a subtraction, of which a GPU does several times as many as conversions.
constexpr int BIASED_ZERO = 0x4B400000;

template <bool BIASED>
DEVICE float sum_to_float(int sum) {
    return BIASED ? __int_as_float(sum) - 12582912.0f : static_cast<float>(sum);
}

// What part c multiplies a lane's two rows with. Sums count 1 / unit; weights of one group leave that to their rows.
struct RowScales {
    float s[2], r[2];

    DEVICE RowScales() {}
    DEVICE RowScales(float unit, int c, const Fragment& at, const Linear& of) {
        const int block = GROUPED ? c / of.block_parts : c;
        UNROLL for (int half = 0; half < 2; ++half) {
            const int row = at.row_of(half, of);
            s[half] = at_row(of.x_scale + block, row, of.blocks);
            if (!GROUPED) s[half] = s[half] * unit;
            r[half] = GROUPED && HAS_ZERO ? -at_row(of.code_sum + c, row, of.parts) : 0.0f;
        }
    }
};

// What part c of a grouped weight multiplies a tile's two columns of a lane with.
struct ColumnScales {
    float d[2], z[2];

    DEVICE ColumnScales() {}
    DEVICE ColumnScales(float unit, int c, int tile, const Fragment& at, const Linear& of) {
        if (!GROUPED) return;
        const int group = c / of.group_parts;
        UNROLL for (int i = 0; i < 2; ++i) {
            const int column = at.column_of(tile, i, of);
            d[i] = at_row(of.scale + group, column, of.groups) * unit;
            z[i] = HAS_ZERO ? centred(at_row(of.zero + group, column, of.groups)) * (1 / unit) : 0.0f;
        }
    }
};

// Adds the scaled sums of a part to the total of one tile; BIASED ones started at BIASED_ZERO.
template <bool BIASED>
DEVICE void add_tile(float (&total)[4], const int (&sums)[4], const RowScales& rows, const ColumnScales& columns) {
    UNROLL for (int i = 0; i < 4; ++i) {
        float part = sum_to_float<BIASED>(sums[i]);
        if (GROUPED) part = __fmaf_rn(rows.r[i / 2], columns.z[i % 2], part) * columns.d[i % 2];
        total[i] = __fmaf_rn(part, rows.s[i / 2], total[i]);
    }
}
