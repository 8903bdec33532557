// Rotated activations, X R.
#include "transform.cuh"

// out [tokens, in] = FACTOR · Hᵀ (±X) H_WIDTH of each token of x.
KERNEL(THREADS, RESIDENT) rotate(const IN* __restrict__ x, IN* __restrict__ out, const Words4* __restrict__ factor,
                                 const uint32* __restrict__ signs, int64 tokens, int64 stride) {
    constexpr int PER_STORE = 16 / sizeof(IN);
    union Stored {
        IN value[PER_STORE];
        Words4 words;
    };
    Transform transform(x, factor, signs, tokens, stride);
    for (int64 token = blockIdx.x; token < tokens; token += gridDim.x) {
        Rows rows;
        transform.take<8>(token, rows);
        UNROLL for (int half = 0; half < 2; ++half) {
            if (!rows.has(half)) continue;
            IN* const to = out + (token * MEMBERS + rows.row(half)) * WIDTH + threadIdx.x % 4 * 8;
            UNROLL for (int j = 0; j < HELD / 8; ++j) {
                UNROLL for (int first = 0; first < 8; first += PER_STORE) {
                    Stored stored;
                    UNROLL for (int i = 0; i < PER_STORE; ++i) {
                        const int k = first + i;
                        from_float(rows.at(half, register_of<8>(j, k)) * flipped(FACTOR, sign(k)), stored.value[i]);
                    }
                    *reinterpret_cast<Words4*>(to + 32 * j + first) = stored.words;
                }
            }
        }
    }
}
