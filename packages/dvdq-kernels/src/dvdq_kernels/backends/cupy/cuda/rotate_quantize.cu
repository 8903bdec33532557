// Rotation and blockwise quantization in one pass: rotated activations never leave the registers.
#include "transform.cuh"
#include "blocks.cuh"

// A block is ROWS rows of a token, or ABREAST of them lie in a row. Lanes combine SPAN rows, memory the others.
constexpr int ROWS = BLOCK > WIDTH ? BLOCK / WIDTH : 1, ABREAST = BLOCK < WIDTH ? WIDTH / BLOCK : 1;
constexpr int SPAN = span_of(ROWS, 16);
// Codes of a run: 16 bytes, but the runs of four lanes lie in one block.
constexpr int PER_BYTE = PACKED ? 2 : 1;
constexpr int RUN = least(16 * PER_BYTE, least(WIDTH, BLOCK) / 4), RUNS = HELD / RUN;

// `value` of each row and block abreast, combined over the four lanes of a row and over SPAN rows.
template <typename T, class Combine>
DEVICE void combine_lanes(T (&value)[2][ABREAST], Combine of) {
    UNROLL for (int b = 0; b < ABREAST; ++b) {
        UNROLL for (int half = 0; half < 2; ++half)
            UNROLL for (int mask = 1; mask < 4 * least(SPAN, 8); mask *= 2)
                value[half][b] = of(value[half][b], __shfl_xor_sync(ALL, value[half][b], mask));
        if constexpr (SPAN == 16) value[0][b] = value[1][b] = of(value[0][b], value[1][b]);
    }
}

// Calls use(half, abreast, block) for each block of each row of this lane, if rows that share it leave it to this lane.
template <class Use>
DEVICE void for_blocks(bool leaders, Use use) {
    UNROLL for (int half = 0; half < 2; ++half) {
        const int row = Rows::row(half);
        if (!Rows::has(half) || (leaders && (threadIdx.x % 4 || row % SPAN))) continue;
        UNROLL for (int b = 0; b < ABREAST; ++b) use(half, b, row / ROWS * ABREAST + b);
    }
}

// x_max of each block that this lane has a part of.
DEVICE void find_largest(Rows& rows, float (&largest)[2][ABREAST], Blocks& blocks) {
    Key key[2][ABREAST];
    UNROLL for (int half = 0; half < 2; ++half)
        UNROLL for (int b = 0; b < ABREAST; ++b) {
            key[half][b] = 0;
            UNROLL for (int j = b * (RUNS / ABREAST); j < (b + 1) * (RUNS / ABREAST); ++j)
                UNROLL for (int k = 0; k < RUN; ++k) {
                    const float x = rows.at(half, register_of<RUN>(j, k));
                    key[half][b] = larger_key(key[half][b], key_of(SIGNED_SCALES ? flipped(x, sign(k)) : x));
                }
        }
    combine_lanes(key, [](Key a, Key b) { return larger_key(a, b); });
    UNROLL for (int half = 0; half < 2; ++half)
        UNROLL for (int b = 0; b < ABREAST; ++b) largest[half][b] = value_of(stored_key(key[half][b]));
    if constexpr (SPAN == ROWS) return;
    for_blocks(true, [&](int half, int b, int block) { atomicMax(&blocks.largest[block], stored_key(key[half][b])); });
    __syncthreads();
    for_blocks(false, [&](int half, int b, int block) { largest[half][b] = value_of(blocks.largest[block]); });
}

// WHOLE + round(x · step), clamped if there is a clip: then a product between 0 and 1 first, which costs no more.
DEVICE float whole_code(float x, float step) {
    if constexpr (!CLIPPED) return __fmaf_rn(x, step, WHOLE);
    constexpr float RANGE = HIGH - LOW;
    return __fmaf_rn(fma_saturated(x, step, -LOW / RANGE), RANGE, WHOLE + LOW);
}

// `codes` are those of this lane's first run.
DEVICE void quantize(Rows& rows, uint8* codes, Blocks& blocks) {
    float largest[2][ABREAST], scale[2][ABREAST];
    int sum[2][ABREAST];
    find_largest(rows, largest, blocks);
    UNROLL for (int half = 0; half < 2; ++half) {
        UNROLL for (int b = 0; b < ABREAST; ++b) {
            scale[half][b] = valid_scale(largest[half][b] * (FACTOR / LIMIT), largest[half][b]);
            const float step = __fdiv_rn(CLIPPED ? FACTOR / (HIGH - LOW) : FACTOR, scale[half][b]);
            sum[half][b] = 0;
            UNROLL for (int j = b * (RUNS / ABREAST); j < (b + 1) * (RUNS / ABREAST); ++j) {
                float whole[RUN];
                UNROLL for (int k = 0; k < RUN; ++k)
                    whole[k] = whole_code(rows.at(half, register_of<RUN>(j, k)), flipped(step, sign(k)));
                if (rows.has(half)) store_codes(whole, codes + (8 * WIDTH * half + 4 * RUN * j) / PER_BYTE, sum[half][b]);
            }
        }
    }
    combine_lanes(sum, [](int a, int b) { return a + b; });
    for_blocks(true, [&](int half, int b, int block) {
        blocks.scale[block] = scale[half][b];
        if constexpr (SPAN == ROWS)
            blocks.sum[block] = sum[half][b];
        else
            atomicAdd(&blocks.sum[block], sum[half][b]);
    });
}

// Codes, scales [tokens, BLOCKS] and token sums [tokens] of FACTOR · Hᵀ (±X) H_WIDTH of each token of x.
KERNEL(THREADS, RESIDENT) rotate_quantize(const IN* __restrict__ x, uint8* __restrict__ codes, float* __restrict__ scale,
                                          float* __restrict__ token_sum, const Words4* __restrict__ factor,
                                          const uint32* __restrict__ signs, int64 tokens, int64 stride) {
    // A token's scales and sum are written while the next one is computed: no barrier is there for them alone.
    Blocks* const blocks = reinterpret_cast<Blocks*>(shared_memory() + STAGES * STAGE);
    blocks[0].clear();
    blocks[1].clear();
    Transform transform(x, factor, signs, tokens, stride);
    codes += (Rows::row(0) * WIDTH + threadIdx.x % 4 * RUN) / PER_BYTE;
    int turn = 0;
    int64 token = blockIdx.x;
    for (; token < tokens; token += gridDim.x) {
        Rows rows;
        transform.take<RUN>(token, rows);
        const int64 last = token - gridDim.x;
        if (last >= 0) blocks[turn ^ 1].finish(scale + last * BLOCKS, token_sum + last);
        quantize(rows, codes + token * (MEMBERS * WIDTH / PER_BYTE), blocks[turn]);
        turn ^= 1;
    }
    token -= gridDim.x;
    __syncthreads();
    blocks[turn ^ 1].finish(scale + token * BLOCKS, token_sum + token);
}
