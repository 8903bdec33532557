// Codes back to weights (Eq. 2).
#include "vectors.cuh"

// Ŵ = Δ (q - z) of `size` codes, `width` of them a grid; z is `offset` where `zero` is null. A thread decodes four, which
// share a grid if WHOLE; two lie in a byte if PACKED, the first low.
KERNEL(256, 1) decode(const uint8* __restrict__ qweight, const float* __restrict__ scale, const int16* __restrict__ zero,
                      float* __restrict__ weight, int64 size, int64 width, int offset) {
    constexpr int PER_BYTE = PACKED ? 2 : 1, BYTES = 4 / PER_BYTE;
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const int64 first = static_cast<int64>(thread) * 4;
    if (first >= size) return;
    const bool all = first + 4 <= size;
    uint8 bytes[BYTES];
    if (all)
        load(bytes, qweight + first / PER_BYTE);
    else
        UNROLL for (int i = 0; i < BYTES; ++i) bytes[i] = qweight[least(first + i * PER_BYTE, size - 1) / PER_BYTE];
    float value[4];
    UNROLL for (int i = 0; i < 4; ++i) {
        const int64 grid = WHOLE ? thread / static_cast<unsigned>(width / 4) : least(first + i, size - 1) / width;
        const int code = PACKED ? bytes[i / 2] >> (i % 2 * 4) & 15 : bytes[i];
        value[i] = scale[grid] * static_cast<float>(code - (zero == nullptr ? offset : zero[grid]));
    }
    if (all)
        store(value, weight + first);
    else
        UNROLL for (int i = 0; i < 4; ++i)
            if (first + i < size) weight[first + i] = value[i];
}
