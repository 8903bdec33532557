// A product of int8 codes on Hopper: TMA brings tiles, wgmma multiplies them, each in warpgroups of their own.
//
// A block stays on its multiprocessor and takes tiles of BLOCK_M × BLOCK_N outputs, one after the other. The CLUSTER
// blocks of a cluster take tiles below one another, and so the same rows of the weight at the same time. One thread of
// the last warpgroup, the producer, fills a ring of STAGES steps of 128 channels. Each of the others, the consumers,
// multiplies 64 rows of the tile, and gives a step back when the wgmmas of the next one are on their way.
//
// DECODES  whether the weight is codes two a byte, which the consumers decode into one of DECODED steps of their own;
//          otherwise it is int8.
// WIDTH    channels of a part, if there are several.
#include "epilogue.cuh"
#include "outputs.cuh"
#include "pipeline.cuh"

// Decoding leaves 16 u in a byte.
constexpr float UNIT = DECODES ? 0.0625f : 1.0f;

// The sums of a whole row.
template <int N>
DEVICE void multiply_row(int (&sums)[N][4], Pipeline& pipeline, int steps) {
    for (int step = 0; step < steps; ++step) {
        pipeline.open();
        pipeline.multiply<BLOCK_K>(sums, 0, step > 0);
        wgmma_wait<1>();
        if (step > 0) pipeline.release(pipeline.before);
    }
    wgmma_wait<0>();
    settle(sums);
    pipeline.release(pipeline.now);
}

// Channels of a part that lie in one step, parts of a step, and steps of a part.
constexpr int SHARE = least(WIDTH, BLOCK_K), SHARES = BLOCK_K / SHARE, PART_STEPS = WIDTH / SHARE;

// Adds the scaled sums of a part, whose products have ended, to the totals.
template <int N>
DEVICE void add_sums(float (&total)[N][4], int (&sums)[N][4], const RowScales& rows, int part, const Fragment& at,
                     const Linear& of) {
    settle(sums);
    UNROLL for (int j = 0; j < N; ++j) add_tile<false>(total[j], sums[j], rows, ColumnScales(UNIT, part, j, at, of));
}

// Sends the products of a part on their way, and does `meanwhile` when those of the part before have ended.
template <int N, class Meanwhile>
DEVICE void multiply_part(int (&sums)[N][4], int part, Pipeline& pipeline, bool first, Meanwhile meanwhile) {
    if (part % SHARES == 0) pipeline.open();
    pipeline.multiply<SHARE>(sums, part % SHARES * SHARE, false);
    if (!first) {
        wgmma_wait<1>();
        if (SHARES == 1) pipeline.release(pipeline.before);
        meanwhile();
    }
    for (int step = 1; step < PART_STEPS; ++step) {
        pipeline.open();
        pipeline.multiply<BLOCK_K>(sums, 0, true);
        wgmma_wait<1>();
        pipeline.release(pipeline.before);
    }
}

// Ends a part that nothing is multiplied beside, and adds its scaled sums to the totals.
template <int N>
DEVICE void end_part(float (&total)[N][4], int (&sums)[N][4], const RowScales& rows, int part, Pipeline& pipeline,
                     const Fragment& at, const Linear& of) {
    wgmma_wait<0>();
    if ((part + 1) % SHARES == 0 || part + 1 == of.parts) pipeline.release(pipeline.now);
    add_sums(total, sums, rows, part, at, of);
}

// The totals of a row whose scales change from part to part.
//
// Of two parts, the first one's sums are scaled while the second is multiplied, the second one's while the other
// warpgroup multiplies: wgmmas of a third, on their way across both, would be serialised by the compiler. Where columns
// have scales of their own, registers hold one part only.
template <int N>
DEVICE void multiply_parts(float (&total)[N][4], Pipeline& pipeline, const Fragment& at, const Linear& of) {
    int even[N][4], odd[N][4];
    UNROLL for (int j = 0; j < N; ++j) UNROLL for (int i = 0; i < 4; ++i) total[j][i] = 0;
    for (int part = 0; part < of.parts; part += GROUPED ? 1 : 2) {
        const RowScales even_rows(UNIT, part, at, of);
        multiply_part(even, part, pipeline, true, [] {});
        if (GROUPED || part + 1 == of.parts) {
            end_part(total, even, even_rows, part, pipeline, at, of);
        } else {
            const RowScales odd_rows(UNIT, part + 1, at, of);
            multiply_part(odd, part + 1, pipeline, false, [&] { add_sums(total, even, even_rows, part, at, of); });
            end_part(total, odd, odd_rows, part + 1, pipeline, at, of);
        }
    }
}

CLUSTER_KERNEL(WARPGROUP*(CONSUMERS + 1), 1, CLUSTER)
product_wgmma(TENSOR_MAP codes, TENSOR_MAP weight, int steps, LINEAR_ARGUMENTS) {
    const Memory memory;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(memory.full + i, 1);
            barrier_init(memory.empty + i, CLUSTER * CONSUMERS * WARPGROUP / 32);
        }
        fence_async();
    }
    cluster_sync();
    Tiles tiles(tokens, out_features);
    if (threadIdx.x / WARPGROUP == CONSUMERS) {
        fewer_registers<40>();
        if (threadIdx.x % WARPGROUP == 0) produce(memory, codes, weight, steps, tiles);
        __syncwarp();
    } else {
        more_registers<232>();
        const Linear of = LINEAR;
        Pipeline pipeline(memory);
        for (int row, column; tiles.take(row, column);) {
            const Fragment at(row + threadIdx.x / 32 * 16, column);
            float total[BLOCK_N / 8][4];
            if constexpr (PARTED) {
                multiply_parts(total, pipeline, at, of);
            } else {
                int sums[BLOCK_N / 8][4];
                multiply_row(sums, pipeline, steps);
                UNROLL for (int j = 0; j < BLOCK_N / 8; ++j)
                    UNROLL for (int i = 0; i < 4; ++i) total[j][i] = static_cast<float>(sums[j][i]);
            }
            write_outputs(total, UNIT, at, of);
        }
    }
    // No block ends while another may write to its shared memory.
    cluster_sync();
}
