// The Hadamard transform of tokens, one after the other, by a block of threads that keeps the next ones coming.
//
// A token is a matrix [MEMBERS, WIDTH] of its channels, and its transform is Hᵀ X H_WIDTH but for a factor, H the outer
// one. A warp has 16 rows of it:
// 1. Hᵀ X on tensor cores: exact products of ±1 with what 16 bits hold, of which a float32 is three, summed in float32;
// 2. H_WIDTH by sums and differences of what a lane holds, and of what two lanes exchange.
#pragma once

constexpr int WARPS = (MEMBERS + 15) / 16, THREADS = 32 * WARPS;
constexpr int TILES = WIDTH / 8;             // of the 16 rows of a warp, each of 8 columns
constexpr int DEPTH = DENSE ? WARPS : 1;     // 16 rows of X each: a block-diagonal H needs the warp's own alone
constexpr int HELD = WIDTH / 4;              // values of a row that a lane holds
constexpr int PARTS = sizeof(IN) == 4 ? 3 : 1;
constexpr int PITCH = 2 * WIDTH + 16;        // bytes from row to row: the 8 of a matrix of ldmatrix meet all 32 banks
constexpr int PART = MEMBERS * PITCH, STAGE = PARTS * PART;
constexpr int AHEAD = STAGES > 1 ? STAGES - 1 : 1;
constexpr unsigned ALL = 0xFFFFFFFF;

DEVICE void product(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bfloat16) { mma_bf16(d, a, b0, b1); }
DEVICE void product(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float16) { mma_f16(d, a, b0, b1); }
DEVICE void product(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float) { mma_bf16(d, a, b0, b1); }

// What a lane holds of two rows of the warp's 16: lane / 4 (half 0) and 8 more (half 1). Register i has columns
// 8 (i / 2) + 2 (lane % 4) + i % 2, as mma leaves them; after `mix`, see there.
struct Rows {
    float tile[TILES][4];
    DEVICE float& at(int half, int i) { return tile[i / 2][2 * half + i % 2]; }
    DEVICE static int row(int half) { return static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4) + 8 * half; }
    // The last warp may have fewer rows.
    DEVICE static bool has(int half) { return MEMBERS % 16 == 0 || row(half) < MEMBERS; }
};

// One level of H within a lane's registers: across bit `bit` of their numbers.
DEVICE void mix_registers(Rows& rows, int half, int bit) {
    UNROLL for (int i = 0; i < HELD; ++i) {
        if (i & bit) continue;
        const float a = rows.at(half, i), b = rows.at(half, i | bit);
        rows.at(half, i) = a + b;
        rows.at(half, i | bit) = a - b;
    }
}

// One level across bit `mask` of the lanes, which trade it for bit `bit` of the registers: a lane gives half of what it
// holds. The upper lane takes its differences the other way round; `sign` says which.
DEVICE void mix_lanes(Rows& rows, int half, int bit, int mask) {
    const bool upper = threadIdx.x & mask;
    UNROLL for (int i = 0; i < HELD; ++i) {
        if (i & bit) continue;
        const float low = rows.at(half, i), high = rows.at(half, i | bit);
        const float kept = upper ? high : low;
        const float taken = __shfl_xor_sync(ALL, upper ? low : high, mask);
        rows.at(half, i) = kept + taken;
        rows.at(half, i | bit) = kept - taken;
    }
}

// H_WIDTH. A lane then holds runs of RUN neighbouring columns, 8 or more: run j begins at (4 j + lane % 4) RUN, and its
// column k is `register_of<RUN>(j, k)`, negated where `sign(k)` says so.
template <int RUN>
DEVICE void mix(Rows& rows) {
    UNROLL for (int half = 0; half < 2; ++half) {
        UNROLL for (int bit = 1; bit < HELD; bit *= 2) mix_registers(rows, half, bit);
        mix_lanes(rows, half, RUN / 4, 1);
        mix_lanes(rows, half, RUN / 2, 2);
    }
}
template <int RUN>
DEVICE constexpr int register_of(int j, int k) {
    return j * RUN + k / 2 % 4 * (RUN / 4) + k / 8 * 2 + k % 2;
}
// The bit to flip in a float, for four kinds of columns.
DEVICE int sign(int k) {
    const unsigned both = threadIdx.x & k / 2 % 4;
    return static_cast<int>((both ^ both >> 1) << 31);
}
DEVICE float flipped(float x, int sign) { return __int_as_float(__float_as_int(x) ^ sign); }

class Transform {
public:
    // Tokens are `stride` apart. `factor` has Hᵀ as registers of mma, `signs` words as `with_signs` takes them, or is null.
    DEVICE Transform(const IN* x, const Words4* factor, const uint32* signs, int64 tokens, int64 stride)
        : x_(x), tokens_(tokens), stride_(stride) {
        if constexpr (SIGNED)
            UNROLL for (int i = 0; i < SIGN_WORDS; ++i) signs_[i] = signs[i * THREADS + threadIdx.x];
        UNROLL for (int k = 0; k < DEPTH; ++k) {
            const Words4 given = factor[(threadIdx.x / 32 * DEPTH + k) * 32 + threadIdx.x % 32];
            UNROLL for (int i = 0; i < 4; ++i) factor_[k][i] = given.word[i];
        }
        UNROLL for (int i = 0; i < AHEAD; ++i) fetch(blockIdx.x + i * gridDim.x);
    }

    // The transform of `token`: the block's first, or gridDim.x after the last. Every thread then has passed a barrier.
    template <int RUN>
    DEVICE void take(int64 token, Rows& rows) {
        const int64 next = token + static_cast<int64>(AHEAD) * gridDim.x;
        copy_async_wait<AHEAD - 1>();
        if constexpr (PARTS == 1 && SIGNED) flip();
        __syncthreads();
        if constexpr (STAGES > 1) fetch(next);
        multiply(rows);
        if constexpr (STAGES == 1) {
            __syncthreads();
            fetch(next);
        }
        stage_ = after(stage_);
        mix<RUN>(rows);
    }

private:
    static constexpr int PER_CHUNK = 16 / sizeof(IN), CHUNKS_IN_ROW = WIDTH / PER_CHUNK, CHUNKS = MEMBERS * CHUNKS_IN_ROW;
    static constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS, SIGN_WORDS = (ROUNDS + 3) / 4;

    const IN* x_;
    int64 tokens_, stride_;
    unsigned factor_[DEPTH][4];
    uint32 signs_[SIGN_WORDS];
    int stage_ = 0, filling_ = 0;

    DEVICE static int after(int stage) { return stage + STAGE == STAGES * STAGE ? 0 : stage + STAGE; }

    // Where this thread's chunk of 16 bytes of a token, of each round, lies in a stage.
    DEVICE static int place(int round) {
        // Mostly a round is so many whole rows, and the distance from one to the next a constant.
        constexpr int DOWN = THREADS % CHUNKS_IN_ROW == 0 ? THREADS / CHUNKS_IN_ROW : 0;
        const unsigned chunk = threadIdx.x + (DOWN ? 0 : round * THREADS);
        return chunk / CHUNKS_IN_ROW * PITCH + chunk % CHUNKS_IN_ROW * (2 * PER_CHUNK) + round * DOWN * PITCH;
    }
    template <class Use>
    DEVICE static void for_rounds(Use use) {
        UNROLL for (int i = 0; i < ROUNDS; ++i)
            if ((i + 1) * THREADS <= CHUNKS || threadIdx.x < CHUNKS - i * THREADS) use(i);
    }

    // Begins to bring a token, if there is such, to where the last but STAGES was.
    DEVICE void fetch(int64 token) {
        if (token < tokens_) {
            const Words4* const from = reinterpret_cast<const Words4*>(x_ + token * stride_) + threadIdx.x;
            if constexpr (PARTS == 1)
                for_rounds([&](int i) { copy_async_16(shared_memory() + filling_ + place(i), from + i * THREADS, true); });
            else
                split(from);
        }
        copy_async_commit();
        filling_ = after(filling_);
    }

    // 24 bits of a float32 are three times 8: what bfloat16 holds of it, what it holds of the rest, and the rest.
    DEVICE void split(const Words4* from) const {
        for_rounds([&](int round) {
            const Words4 given = with_signs(from[round * THREADS], round);
            float rest[4];
            UNROLL for (int i = 0; i < 4; ++i) rest[i] = __int_as_float(static_cast<int>(given.word[i]));
            UNROLL for (int part = 0; part < PARTS; ++part) {
                uint32 leading[4];
                UNROLL for (int i = 0; i < 4; ++i) {
                    leading[i] = static_cast<uint32>(__float_as_int(rest[i])) & 0xFFFF0000;
                    rest[i] = rest[i] - __int_as_float(static_cast<int>(leading[i]));
                }
                *reinterpret_cast<Words2*>(shared_memory() + place(round) + part * PART) =
                    Words2{__byte_perm(leading[0], leading[1], 0x7632), __byte_perm(leading[2], leading[3], 0x7632)};
            }
        });
    }

    // A chunk times its ±1. Bit 4 (round % 4) + i of a word of signs is for the lower 16 bits of word i, if they have
    // a sign of their own, and the bit 16 higher for the upper ones.
    DEVICE Words4 with_signs(Words4 given, int round) const {
        if constexpr (SIGNED) {
            const uint32 signs = anew(signs_[round / 4]);
            UNROLL for (int i = 0; i < 4; ++i) given.word[i] ^= signs << (15 - round % 4 * 4 - i) & 0x80008000;
        }
        return given;
    }

    // The signs of what this thread itself has copied, and so sees.
    DEVICE void flip() const {
        for_rounds([&](int round) {
            Words4* const at = reinterpret_cast<Words4*>(shared_memory() + stage_ + place(round));
            *at = with_signs(*at, round);
        });
    }

    // Hᵀ X; of a float32 the least part first. Rows past the last meet zeros in H and repeat it.
    DEVICE void multiply(Rows& rows) const {
        const int lane = threadIdx.x % 32;
        UNROLL for (int t = 0; t < TILES; ++t)
            UNROLL for (int i = 0; i < 4; ++i) rows.tile[t][i] = 0;
        UNROLL for (int part = PARTS - 1; part >= 0; --part) {
            UNROLL for (int k = 0; k < DEPTH; ++k) {
                int row = 16 * (DENSE ? k : static_cast<int>(threadIdx.x) / 32) + lane % 16;
                if (MEMBERS % 16 && (!DENSE || k == DEPTH - 1)) row = least(row, MEMBERS - 1);
                const char* const from = shared_memory() + stage_ + part * PART + row * PITCH + lane / 16 * 16;
                UNROLL for (int t = 0; t < TILES; t += 2) {
                    unsigned b[4];
                    load_matrices_transposed(b, from + 16 * t);
                    product(rows.tile[t], factor_[k], b[0], b[1], IN{});
                    product(rows.tile[t + 1], factor_[k], b[2], b[3], IN{});
                }
            }
        }
    }
};
