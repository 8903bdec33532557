// How tiles of both operands reach the warpgroups that multiply them: a ring of stages in shared memory, which one
// thread fills and the others empty, and the decoding of packed weights on the way. Constants: see `product_wgmma.cu`.
#pragma once

#ifdef __CUDACC__
#include "machine/hopper.cuh"
#else
#include "machine/emulation_hopper.cuh"
#endif

constexpr int WARPGROUP = 128, CONSUMERS = BLOCK_M / 64;
// Bytes of a row in a step, and channels of one wgmma.
constexpr int BLOCK_K = 128, WGMMA_K = 32;
// A row of the weight in a step: int8, or two codes a byte.
constexpr int WEIGHT_K = DECODES ? BLOCK_K / 2 : BLOCK_K;
constexpr int CODES_BYTES = BLOCK_M * BLOCK_K, WEIGHT_BYTES = BLOCK_N * WEIGHT_K, INT8_BYTES = BLOCK_N * BLOCK_K;
// Each block of a cluster reads a share of the weight's tile from the L2 cache, for all.
constexpr int WEIGHT_SHARE = BLOCK_N / CLUSTER;
// Rows of tiles that are gone through together: what as many blocks as there are read at a time stays in the L2 cache.
constexpr int RASTER = 2048 / (BLOCK_M * CLUSTER);

// Shared memory, every part of it on 1,024 bytes as swizzling has it.
struct Memory {
    char *decoded, *codes, *weight;
    uint64 *full, *empty;

    DEVICE Memory()
        : decoded(shared_memory()),
          codes(decoded + DECODED * INT8_BYTES),
          weight(codes + STAGES * CODES_BYTES),
          full(reinterpret_cast<uint64*>(weight + STAGES * WEIGHT_BYTES)),
          empty(full + STAGES) {}
};

// Which stage of a ring is next, and the parity of the barriers' phase there.
template <int SIZE>
struct Ring {
    int stage = 0;
    unsigned parity = 0;

    DEVICE void advance() {
        if (++stage == SIZE) stage = 0, parity ^= 1;
    }
};

// The first row and column of each tile that this block takes.
struct Tiles {
    int row_tiles, column_tiles, next;

    DEVICE Tiles(int64 tokens, int64 out_features)
        : row_tiles(parts_of(tokens, CLUSTER * BLOCK_M)),
          column_tiles(parts_of(out_features, BLOCK_N)),
          next(blockIdx.x / CLUSTER) {}
    DEVICE bool take(int& row, int& column) {
        if (next >= row_tiles * column_tiles) return false;
        const int band = next / (RASTER * column_tiles), inside = next % (RASTER * column_tiles);
        const int rows = least(RASTER, row_tiles - band * RASTER);
        row = ((band * RASTER + inside % rows) * CLUSTER + cluster_rank()) * BLOCK_M;
        column = inside / rows * BLOCK_N;
        next += gridDim.x / CLUSTER;
        return true;
    }
};

// The descriptor of rows of 128 bytes, swizzled by 128 bytes, 8 rows in 1,024 bytes; + 2 is 32 bytes further on.
DEVICE uint64 operand(const void* rows) {
    constexpr uint64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 1024ull >> 4 << 32;
    return SWIZZLE_128 | EIGHT_ROWS | 1 << 16 | (shared_address(rows) & 0x3FFFF) >> 4;
}

DEVICE void produce(const Memory& memory, const TensorMap& codes, const TensorMap& weight, int steps, Tiles tiles) {
    Ring<STAGES> ring;
    for (int row, column; tiles.take(row, column);)
        for (int step = 0; step < steps; ++step, ring.advance()) {
            uint64* const full = memory.full + ring.stage;
            barrier_wait(memory.empty + ring.stage, ring.parity ^ 1);
            barrier_expect(full, CODES_BYTES + WEIGHT_BYTES);
            load_box(memory.codes + ring.stage * CODES_BYTES, codes, step * BLOCK_K, row, full);
            const int share = cluster_rank() * WEIGHT_SHARE;
            char* const to = memory.weight + ring.stage * WEIGHT_BYTES + share * WEIGHT_K;
            if constexpr (CLUSTER == 1)
                load_box(to, weight, step * WEIGHT_K, column, full);
            else
                load_box_everywhere<CLUSTER>(to, weight, step * WEIGHT_K, column + share, full);
        }
}

// 16 u of packed codes in channel order, as the swizzle has it: chunk i of 16 bytes of row r lies at i ^ r % 8.
DEVICE void decode(const char* packed, char* to) {
    constexpr uint32 CENTRE = (128u - 16u * OFFSET) * 0x01010101u;
    UNROLL for (int i = 0; i < WEIGHT_BYTES / 16; i += CONSUMERS * WARPGROUP) {
        const int chunk = i + threadIdx.x, row = chunk / (WEIGHT_K / 16), column = chunk % (WEIGHT_K / 16) * 2;
        const Words4 given = *reinterpret_cast<const Words4*>(packed + chunk * 16);
        Words4 pairs[2];
        UNROLL for (int j = 0; j < 4; ++j) {
            const uint32 even = ((given.word[j] << 4 & 0xF0F0F0F0) + CENTRE) ^ 0x80808080;
            const uint32 odd = ((given.word[j] & 0xF0F0F0F0) + CENTRE) ^ 0x80808080;
            pairs[j / 2].word[j % 2 * 2] = __byte_perm(even, odd, 0x5140);
            pairs[j / 2].word[j % 2 * 2 + 1] = __byte_perm(even, odd, 0x7362);
        }
        UNROLL for (int j = 0; j < 2; ++j) store_for_async(to + row * BLOCK_K + ((column + j) ^ row % 8) * 16, pairs[j]);
    }
}

// The steps as one consumer goes through them.
struct Pipeline {
    const Memory& memory;
    Ring<STAGES> ring;
    Ring<largest(DECODED, 1)> decoded;
    uint64 a, b;
    // The empty barriers of the step that is open and of the one before.
    uint64 *now = nullptr, *before = nullptr;

    DEVICE explicit Pipeline(const Memory& memory) : memory(memory) {}

    // Waits for the next step and makes descriptors of it.
    DEVICE void open() {
        barrier_wait(memory.full + ring.stage, ring.parity);
        const char* weight = memory.weight + ring.stage * WEIGHT_BYTES;
        if constexpr (DECODES) {
            char* const to = memory.decoded + decoded.stage * INT8_BYTES;
            decode(weight, to);
            fence_async();
            named_barrier(1, CONSUMERS * WARPGROUP);
            weight = to;
            decoded.advance();
        }
        a = operand(memory.codes + ring.stage * CODES_BYTES + threadIdx.x / WARPGROUP * 64 * BLOCK_K);
        b = operand(weight);
        before = now;
        now = memory.empty + ring.stage;
        ring.advance();
    }
    // Multiplies CHANNELS of the step, from `first` on.
    template <int CHANNELS, int N>
    DEVICE void multiply(int (&sums)[N][4], int first, bool accumulate) {
        wgmma_fence();
        UNROLL for (int i = 0; i < CHANNELS; i += WGMMA_K)
            wgmma(sums, a + (first + i) / 16, b + (first + i) / 16, accumulate || i > 0);
        wgmma_commit();
    }
    // Gives a step back to all producers that write to it; none of its wgmmas is on its way any more.
    DEVICE void release(uint64* empty) {
        if (threadIdx.x % 32 < CLUSTER) barrier_arrive(empty, threadIdx.x % 32);
    }
};
