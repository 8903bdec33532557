// A CPU in place of a GPU: the names of CUDA C++ and the functions of `ptx.cuh`, each doing what the PTX manual says.
#pragma once

#include <algorithm>
#include <cmath>

#include "machine/fibers.cuh"

#define DEVICE
#define KERNEL(THREADS, BLOCKS) extern "C" void
#define NO_UNROLL
#define UNROLL
#define __restrict__
#define threadIdx (emulation::self->index)
#define blockIdx (emulation::block->index)
#define gridDim (emulation::block->count)
#define blockDim (emulation::block->size)

inline char* shared_memory() { return emulation::block->shared; }

inline void __syncthreads() { emulation::gather(emulation::block->barriers[0], static_cast<int>(blockDim.x)); }
inline void __syncwarp(unsigned = 0xFFFFFFFFu) { emulation::Exchanged<int>("syncwarp", 0); }

template <typename T>
T __shfl_sync(unsigned, T value, int from) {
    return emulation::Exchanged<T>("shfl", value)[from];
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulation::Exchanged<T>("shfl", value)[emulation::lane() ^ mask];
}
inline int __any_sync(unsigned, int predicate) {
    emulation::Exchanged<int> all("vote", predicate);
    for (int lane = 0; lane < 32; ++lane)
        if (all[lane]) return 1;
    return 0;
}

inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const std::uint64_t bytes = low | static_cast<std::uint64_t>(high) << 32;
    unsigned out = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned pick = selector >> 4 * i & 15;
        unsigned byte = static_cast<unsigned>(bytes >> 8 * (pick & 7)) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << 8 * i;
    }
    return out;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) c += static_cast<signed char>(a >> 8 * i) * static_cast<signed char>(b >> 8 * i);
    return c;
}
template <typename T>
T __ldg(const T* from) {
    return *from;
}

inline unsigned short float_to_bfloat_bits(float x) {
    const auto bits = static_cast<unsigned>(__float_as_int(x));
    if (x != x) return 0x7FFF;
    return static_cast<unsigned short>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline unsigned short float_to_half_bits(float x) {
    const auto half = static_cast<_Float16>(x);
    unsigned short bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
inline float half_bits_to_float(unsigned short bits) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return static_cast<float>(half);
}

inline unsigned anew(unsigned x) { return x; }
inline float larger_or_nan(float a, float b) { return a != a || b != b ? NAN : std::max(a, b); }
inline float fma_saturated(float a, float b, float c) {
    const float x = std::fma(a, b, c);
    return x > 0 ? std::min(x, 1.0f) : 0.0f;
}

// Threads take turns, so that nothing comes between.
inline unsigned atomicMax(unsigned* at, unsigned value) { return std::exchange(*at, std::max(*at, value)); }
inline int atomicAdd(int* at, int value) { return std::exchange(*at, *at + value); }

inline void load_once_16(unsigned (&r)[4], const void* from) {
    if (reinterpret_cast<std::uintptr_t>(from) % 16) emulation::fail("a load from an address that is no multiple of 16");
    std::memcpy(r, from, 16);
}

inline void copy_async_16(void* to, const void* from, bool there) {
    if (reinterpret_cast<std::uintptr_t>(to) % 16 || (there && reinterpret_cast<std::uintptr_t>(from) % 16))
        emulation::fail("cp.async to or from an address that is no multiple of 16");
    auto copy = [=] { there ? std::memcpy(to, from, 16) : std::memset(to, 0, 16); };
    if (emulation::happens_early())
        copy();
    else
        emulation::self->copies.push_back(copy);
}
inline void copy_async_commit() {
    emulation::self->groups.push_back(std::move(emulation::self->copies));
    emulation::self->copies.clear();
}
template <int PENDING>
void copy_async_wait() {
    auto& groups = emulation::self->groups;
    for (; groups.size() > PENDING; groups.pop_front())
        for (auto& copy : groups.front()) copy();
}

namespace emulation {

struct Row {
    unsigned word[4];
};

// ldmatrix: register i of a lane is word lane % 4 of row lane / 4 of matrix i.
inline void load_matrices(unsigned (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16) fail("ldmatrix from an address that is no multiple of 16");
    // Every lane reads its row when all have come.
    Exchanged<const void*> addresses("ldmatrix", row);
    Row mine;
    std::memcpy(&mine, row, 16);
    Exchanged<Row> rows("ldmatrix", mine);
    for (int i = 0; i < 4; ++i) {
        if (!transposed) {
            r[i] = rows[8 * i + lane() / 4].word[lane() % 4];
            continue;
        }
        unsigned halves[2];
        for (int h = 0; h < 2; ++h) {
            const unsigned word = rows[8 * i + lane() % 4 * 2 + h].word[lane() / 8];
            halves[h] = lane() / 4 % 2 ? word >> 16 : word & 0xFFFF;
        }
        r[i] = halves[0] | halves[1] << 16;
    }
}

struct Operands {
    unsigned a[4], b[2];
};

// Where an mma with K elements of `BITS` bits a row has element (row, k) of A: which lane, register and place in it.
// B is like A's first eight rows. (PTX manual, "Matrix Fragments for mma.m16n8k16, .m16n8k32, .m16n8k64".)
template <int BITS>
struct Place {
    int lane, reg, element;
    Place(int row, int k) {
        constexpr int PER_WORD = 32 / BITS;
        const int half = k / (4 * PER_WORD), inside = k % (4 * PER_WORD);
        lane = row % 8 * 4 + inside / PER_WORD;
        reg = row / 8 + 2 * half;
        element = inside % PER_WORD;
    }
};

template <int BITS>
int integer_at(unsigned word, int element) {
    return static_cast<int>(word << (32 - BITS - BITS * element)) >> (32 - BITS);
}

// d(row, column) with row = lane / 4, + 8 in the upper registers, and column = lane % 4 · 2, + 1 in the odd ones.
template <int BITS, typename Sum, class Read>
void multiply(const char* name, Sum (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Read read) {
    Exchanged<Operands> all(name, Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    constexpr int K = 256 / BITS;
    for (int i = 0; i < 4; ++i) {
        const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
        for (int k = 0; k < K; ++k) {
            const Place<BITS> at_a(row, k), at_b(column, k);
            d[i] += read(all[at_a.lane].a[at_a.reg], at_a.element) * read(all[at_b.lane].b[at_b.reg / 2], at_b.element);
        }
    }
}

}  // namespace emulation

inline void load_matrices(unsigned (&r)[4], const void* row) { emulation::load_matrices(r, row, false); }
inline void load_matrices_transposed(unsigned (&r)[4], const void* row) { emulation::load_matrices(r, row, true); }

inline void mma_s8(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::multiply<8>("mma.s8", d, a, b0, b1, emulation::integer_at<8>);
}
inline void mma_s4(int (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::multiply<4>("mma.s4", d, a, b0, b1, emulation::integer_at<4>);
}
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::multiply<16>("mma.bf16", d, a, b0, b1, [](unsigned word, int element) {
        return __int_as_float(static_cast<int>(element ? word & 0xFFFF0000u : word << 16));
    });
}
inline void mma_f16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::multiply<16>("mma.f16", d, a, b0, b1, [](unsigned word, int element) {
        return half_bits_to_float(static_cast<unsigned short>(element ? word >> 16 : word));
    });
}
