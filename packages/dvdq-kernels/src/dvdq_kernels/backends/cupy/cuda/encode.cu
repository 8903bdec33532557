// Weights to codes of a stored grid, in the canonical layout (Eq. 1).
#include "vectors.cuh"
#include "grid.cuh"

// q = clamp(round(w / Δ) + z, 0, levels), half to even, divided in float64, of `size` weights, `width` of them a grid.
// A thread encodes four, which share a grid if WHOLE; two take a byte if PACKED, the first low.
KERNEL(256, 1) encode(const WEIGHT* __restrict__ weight, const float* __restrict__ scale, const int16* __restrict__ zero,
                      uint8* __restrict__ qweight, int64 size, int64 width, int levels) {
    constexpr int PER_BYTE = PACKED ? 2 : 1, BYTES = 4 / PER_BYTE;
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int64 first = static_cast<int64>(thread) * 4;
    if (first >= size) return;
    const bool all = first + 4 <= size;
    WEIGHT value[4];
    if (all)
        load(value, weight + first);
    else
        UNROLL for (int i = 0; i < 4; ++i) value[i] = weight[least(first + i, size - 1)];
    uint8 bytes[BYTES] = {};
    UNROLL for (int i = 0; i < 4; ++i) {
        const int64 grid = WHOLE ? thread / static_cast<unsigned>(width / 4) : least(first + i, size - 1) / width;
        const double step = nearest(static_cast<double>(exact(value[i])) / scale[grid]) + zero[grid];
        const int code = static_cast<int>(least(largest(step, 0.0), static_cast<double>(levels)));
        bytes[i / PER_BYTE] |= static_cast<uint8>(code << (i % PER_BYTE * 4));
    }
    uint8* const to = qweight + first / PER_BYTE;
    if (all)
        store(bytes, to);
    else
        UNROLL for (int i = 0; i < BYTES; ++i)
            if (first + i * PER_BYTE < size) to[i] = bytes[i];
}
