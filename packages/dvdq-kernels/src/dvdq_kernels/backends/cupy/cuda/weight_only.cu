// The linear on full activations for few tokens, bound by the bytes of the weight, which pass L1 once.
//
// A warp multiplies ROWS rows of the weight by TOKENS tokens. A lane loads 16 bytes of codes a row at a time, the next
// ones before it multiplies these. A row's groups, and rows themselves, begin at multiples of 16 bytes.
#include "weight_only.cuh"

constexpr int WARPS = 4;
constexpr int SUMS = ROWS * TOKENS;
// Channels of a lane's 16 bytes of codes, those decoded at a time, and those in 16 bytes of activations.
constexpr int CHANNELS = 128 / CODE_BITS, UNIT = 8, LOAD = 16 / sizeof(X);
// Channels that a warp takes in a step.
constexpr int STEP = 32 * CHANNELS;

// What a lane has of ROWS rows for a step.
struct Part {
    uint32 codes[ROWS][4];
    float scale[ROWS], zero[ROWS];
};

DEVICE void fetch(Part& part, int64 row, int channel, const WeightOnly& of) {
    if (channel >= of.in_features) return;
    UNROLL for (int r = 0; r < ROWS; ++r) {
        const int64 n = least(row + r, of.out_features - 1), grid = of.grid_of(n, channel);
        load_once_16(part.codes[r], of.qweight + n * of.row_bytes() + channel / CHANNELS * 16);
        part.scale[r] = __ldg(of.scale + grid);
        part.zero[r] = of.zero_of(grid);
    }
}

// q - z of UNIT codes, exact. A float of the exponent 23 - p whose last bits are q · 2^p is 2^(23 - p) + q: neither a
// shift nor a conversion, and a subtraction that is needed anyway.
DEVICE void decode(float (&w)[UNIT], const uint32 (&codes)[4], int unit, float zero) {
    constexpr int PLACES = 16 / CODE_BITS, HALVES = UNIT / PLACES;
    UNROLL for (int half = 0; half < HALVES; ++half) {
        const uint32 word = codes[(unit * HALVES + half) / 2] >> (half % 2 * 16);
        UNROLL for (int i = 0; i < PLACES; ++i) {
            const int p = i * CODE_BITS;
            const uint32 bits = (word & ((1u << CODE_BITS) - 1) << p) | static_cast<uint32>(127 + 23 - p) << 23;
            w[half * PLACES + i] = __int_as_float(static_cast<int>(bits)) - (zero + static_cast<float>(1 << (23 - p)));
        }
    }
}

// A block's activations: in shared memory, with what lanes load together side by side, or else where they are.
struct Activations {
    const WeightOnly& of;
    int64 first_token;
    int steps;

    DEVICE const X* given(int t, int channel) const {
        return of.x + least(first_token + t, of.tokens - 1) * of.in_features + channel;
    }
    DEVICE X* staged(int t, int channel) const {
        const int lane = channel % STEP / CHANNELS, place = channel % CHANNELS / LOAD;
        const int load = ((t * steps + channel / STEP) * (CHANNELS / LOAD) + place) * 32 + lane;
        return reinterpret_cast<X*>(shared_memory()) + load * LOAD;
    }
    DEVICE void stage() const {
        for (int channel = static_cast<int>(threadIdx.x) * LOAD; channel < of.in_features; channel += 32 * WARPS * LOAD)
            UNROLL for (int t = 0; t < TOKENS; ++t) {
                X value[LOAD];
                load(value, given(t, channel));
                store(value, staged(t, channel));
            }
        __syncthreads();
    }
    DEVICE void read(WIDE (&x)[UNIT], int t, int channel) const {
        UNROLL for (int first = 0; first < UNIT; first += LOAD) {
            X value[LOAD];
            load(value, STAGED ? staged(t, channel + first) : given(t, channel + first));
            UNROLL for (int i = 0; i < LOAD; ++i) x[first + i] = static_cast<WIDE>(exact(value[i]));
        }
    }
};

// total += Δ Σ x (q - z) over a lane's channels from `channel` on, of each row and token.
DEVICE void add(WIDE (&total)[SUMS], const Part& part, const Activations& activations, int channel) {
    WIDE sums[SUMS] = {};
    UNROLL for (int unit = 0; unit < CHANNELS / UNIT; ++unit) {
        float w[ROWS][UNIT];
        UNROLL for (int r = 0; r < ROWS; ++r) decode(w[r], part.codes[r], unit, part.zero[r]);
        UNROLL for (int t = 0; t < TOKENS; ++t) {
            WIDE x[UNIT];
            activations.read(x, t, channel + unit * UNIT);
            UNROLL for (int r = 0; r < ROWS; ++r)
                UNROLL for (int i = 0; i < UNIT; ++i)
                    sums[r * TOKENS + t] = fused(x[i], static_cast<WIDE>(w[r][i]), sums[r * TOKENS + t]);
        }
    }
    UNROLL for (int r = 0; r < ROWS; ++r)
        UNROLL for (int t = 0; t < TOKENS; ++t)
            total[r * TOKENS + t] = fused(sums[r * TOKENS + t], static_cast<WIDE>(part.scale[r]), total[r * TOKENS + t]);
}

// A block takes TOKENS tokens and, in each of its turns, ROWS rows a warp; BLOCKS fit on a multiprocessor by registers.
KERNEL(32 * WARPS, BLOCKS) weight_only(WEIGHT_ONLY_ARGUMENTS, int turns) {
    const WeightOnly of = WEIGHT_ONLY;
    constexpr int BLOCK_ROWS = WARPS * ROWS;
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    const int64 row_blocks = parts_of(out_features, BLOCK_ROWS * turns);
    const Activations activations{of, blockIdx.x / row_blocks * TOKENS, static_cast<int>(parts_of(in_features, STEP))};
    int64 row = blockIdx.x % row_blocks * turns * BLOCK_ROWS + warp * ROWS;
    Part next;
    fetch(next, row, lane * CHANNELS, of);
    if constexpr (STAGED) activations.stage();
    for (int turn = 0; turn < turns && row < out_features; ++turn, row += BLOCK_ROWS) {
        WIDE total[SUMS] = {};
        for (int step = 0; step < activations.steps; ++step) {
            const Part part = next;
            const int channel = step * STEP + lane * CHANNELS;
            const bool last = step + 1 == activations.steps;
            if (!last || turn + 1 < turns)
                fetch(next, last ? row + BLOCK_ROWS : row, last ? lane * CHANNELS : channel + STEP, of);
            if (channel < in_features) add(total, part, activations, channel);
        }
        reduce<32>(total, Sum());
        constexpr int HELD = largest(SUMS / 32, 1), ALIKE = largest(32 / SUMS, 1);
        UNROLL for (int i = 0; i < HELD; ++i) {
            const int at = lane / ALIKE * HELD + i;
            const int64 t = activations.first_token + at % TOKENS, n = row + at / TOKENS;
            if (lane % ALIKE == 0 && t < tokens && n < out_features) of.finish(total[i], t, n);
        }
    }
}
