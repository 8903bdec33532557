// The product of activation codes and weight codes by `mma`, with everything else of a linear in its epilogue.
//
// A step multiplies BLOCK_K bytes of BLOCK_M rows of v and of BLOCK_N rows of the weight, which STAGES of asynchronous
// copies bring to shared memory. A row is `a_bytes` of v; `part_steps` steps are a part.
//
// PACKED     v and the weight are nibbles (s4), as stored; otherwise v is bytes (s8), and the weight
// WEIGHT     0: bytes u; 1: codes stored in bytes; 2: codes stored in nibbles.
// ONE_STEP   whether a part is one step.
// BIASED     whether sums start at the bits of 12582912.0f, as |sum| < 2^22 allows.
#include "codes.cuh"
#include "epilogue.cuh"
#include "layouts.cuh"
#include "outputs.cuh"

constexpr bool DECODES = !PACKED && WEIGHT == 2;
constexpr int A_BYTES = BLOCK_K, B_BYTES = DECODES ? BLOCK_K / 2 : BLOCK_K;
constexpr int A_TURN = DECODES ? 2 : 1;
constexpr int A_SIZE = BLOCK_M * A_BYTES, STAGE_SIZE = A_SIZE + BLOCK_N * B_BYTES;
constexpr int THREADS = 32 * WARPS_M * WARPS_N;
constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N;
constexpr int M_TILES = WARP_M / 16, N_TILES = WARP_N / 8;
constexpr float UNIT = DECODES ? 0.0625f : 1.0f;
constexpr int NOTHING = BIASED ? BIASED_ZERO : 0;

// This thread's share of the copies of an operand: ROWS rows of BYTES a step. Rows past the end repeat the last one.
template <int ROWS, int BYTES, int TURN>
struct Copies {
    static constexpr int CHUNKS = BYTES / 16, ALL = ROWS * CHUNKS, MINE = (ALL + THREADS - 1) / THREADS;
    const char* from;
    int offset[MINE];

    DEVICE Copies(const void* operand, int64 first, int64 rows, int64 row_bytes)
        : from(static_cast<const char*>(operand) + first * row_bytes) {
        UNROLL for (int i = 0; i < MINE; ++i) {
            const int index = threadIdx.x + i * THREADS, row = index / CHUNKS;
            const int64 last = rows - 1 - first;
            offset[i] = static_cast<int>(least<int64>(row, last) * row_bytes) + index % CHUNKS * 16;
        }
    }
    DEVICE void start(char* to) {
        UNROLL for (int i = 0; i < MINE; ++i) {
            const int index = threadIdx.x + i * THREADS;
            if (ALL % THREADS == 0 || index < ALL)
                copy_async_16(to + place<BYTES, TURN>(index / CHUNKS, index % CHUNKS), from + offset[i], true);
        }
        from += BYTES;
    }
};

struct Operands {
    uint32 a[DECODES ? 2 : 1][M_TILES][4], b[N_TILES][2];
};

// 32 bytes of a warp's rows of the weight, and of v as many channels.
DEVICE void load(Operands& to, const char* a, const char* b, int k) {
    const int lane = threadIdx.x % 32;
    UNROLL for (int i = 0; i < M_TILES; ++i) {
        if constexpr (DECODES) {
            // A lane's word of the weight is 8 channels: the even ones meet one register of v, the odd ones another.
            UNROLL for (int half = 0; half < 4; ++half) {
                const int row = 16 * i + half % 2 * 8 + lane / 4, step = half / 2;
                const int chunk = 4 * k + 2 * step + lane % 4 / 2;
                const auto v = *reinterpret_cast<const Words2*>(a + place<A_BYTES, A_TURN>(row, chunk) + lane % 2 * 8);
                to.a[step][i][half % 2] = __byte_perm(v.word[0], v.word[1], 0x6420);
                to.a[step][i][half % 2 + 2] = __byte_perm(v.word[0], v.word[1], 0x7531);
            }
        } else {
            load_matrices(to.a[0][i], a + place<A_BYTES, A_TURN>(16 * i + lane % 16, 2 * k + lane / 16));
        }
    }
    UNROLL for (int j = 0; j < N_TILES; j += 2) {
        uint32 words[4];
        load_matrices(words, b + place<B_BYTES, 1>(8 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        UNROLL for (int i = 0; i < 4; ++i) to.b[j + i / 2][i % 2] = words[i];
    }
}

DEVICE void multiply(int (&sums)[M_TILES][N_TILES][4], const Operands& of) {
    UNROLL for (int j = 0; j < N_TILES; ++j) {
        uint32 b[2] = {of.b[j][0], of.b[j][1]};
        UNROLL for (int step = 0; step < (DECODES ? 2 : 1); ++step) {
            if constexpr (DECODES) {
                decode_nibbles(of.b[j][step], b[0], b[1]);
            } else if constexpr (WEIGHT != 0) {
                UNROLL for (int i = 0; i < 2; ++i) b[i] = PACKED ? centred_nibbles(b[i]) : centred_bytes(b[i]);
            }
            UNROLL for (int i = 0; i < M_TILES; ++i) {
                if constexpr (PACKED)
                    mma_s4(sums[i][j], of.a[step][i], b[0], b[1]);
                else
                    mma_s8(sums[i][j], of.a[step][i], b[0], b[1]);
            }
        }
    }
}

template <typename T, int M>
DEVICE void set(T (&registers)[M][N_TILES][4], T value) {
    UNROLL for (int i = 0; i < M; ++i)
        UNROLL for (int j = 0; j < N_TILES; ++j)
            UNROLL for (int r = 0; r < 4; ++r) registers[i][j][r] = value;
}

KERNEL(THREADS, 1)
product_mma(const void* __restrict__ codes, const void* __restrict__ weight, int64 a_bytes, int steps, int part_steps,
            LINEAR_ARGUMENTS) {
    const Linear of = LINEAR;
    const auto tile = tile_of<GROUP_M>(blockIdx.x, parts_of(tokens, BLOCK_M), parts_of(out_features, BLOCK_N));
    const int64 first_m = tile.row * BLOCK_M, first_n = tile.column * BLOCK_N;
    const int warp_m = threadIdx.x / 32 / WARPS_N * WARP_M, warp_n = threadIdx.x / 32 % WARPS_N * WARP_N;
    char* const memory = shared_memory();

    Copies<BLOCK_M, A_BYTES, A_TURN> a_copies(codes, first_m, tokens, a_bytes);
    Copies<BLOCK_N, B_BYTES, 1> b_copies(weight, first_n, out_features, DECODES ? a_bytes / 2 : a_bytes);
    int written = 0, read = 0;
    auto copy = [&](int step) {
        if (step < steps) {
            a_copies.start(memory + written * STAGE_SIZE);
            b_copies.start(memory + written * STAGE_SIZE + A_SIZE);
        }
        copy_async_commit();
        written = written + 1 == STAGES ? 0 : written + 1;
    };
    for (int step = 0; step < STAGES - 1; ++step) copy(step);

    int sums[M_TILES][N_TILES][4];
    float total[PARTED ? M_TILES : 1][N_TILES][4];
    set(sums, NOTHING);
    if (PARTED) set(total, 0.0f);

    auto at = [&](int i) { return Fragment(first_m + warp_m + 16 * i, first_n + warp_n); };
    int part = 0, left = part_steps;
    for (int step = 0; step < steps; ++step) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        copy(step + STAGES - 1);
        if (ONE_STEP) set(sums, NOTHING);
        const bool ends = PARTED && (ONE_STEP || --left == 0);
        // Asked for before the products, so that they arrive meanwhile.
        RowScales rows[M_TILES];
        ColumnScales columns[N_TILES];
        if (ends) {
            UNROLL for (int i = 0; i < M_TILES; ++i) rows[i] = RowScales(UNIT, part, at(i), of);
            UNROLL for (int j = 0; j < N_TILES; ++j) columns[j] = ColumnScales(UNIT, part, j, at(0), of);
        }
        const char* const a = memory + read * STAGE_SIZE + warp_m * A_BYTES;
        const char* const b = memory + read * STAGE_SIZE + A_SIZE + warp_n * B_BYTES;
        UNROLL for (int k = 0; k < B_BYTES / 32; ++k) {
            Operands operands;
            load(operands, a, b, k);
            multiply(sums, operands);
        }
        read = read + 1 == STAGES ? 0 : read + 1;
        if (ends) {
            UNROLL for (int i = 0; i < M_TILES; ++i)
                UNROLL for (int j = 0; j < N_TILES; ++j)
                    add_tile<BIASED>(total[PARTED ? i : 0][j], sums[i][j], rows[i], columns[j]);
            if (!ONE_STEP) set(sums, NOTHING);
            left = part_steps;
            ++part;
        }
    }
    UNROLL for (int i = 0; i < M_TILES; ++i) {
        if constexpr (!PARTED)
            UNROLL for (int j = 0; j < N_TILES; ++j)
                UNROLL for (int r = 0; r < 4; ++r) total[0][j][r] = static_cast<float>(sums[i][j][r]);
        write_outputs(total[PARTED ? i : 0], UNIT, at(i), of);
    }
}
