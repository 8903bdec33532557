// Σ v over the channels of each part, which lie one after the other: of codes in bytes, or in nibbles if PACKED.

// The sum of the codes in a word; a nibble plus 8 has no sign.
DEVICE int added(uint32 codes, int sum) {
    if constexpr (!PACKED) return __dp4a(static_cast<int>(codes), 0x01010101, sum);
    codes ^= 0x88888888u;
    sum = __dp4a(static_cast<int>(codes & 0x0F0F0F0F), 0x01010101, sum - 64);
    return __dp4a(static_cast<int>(codes >> 4 & 0x0F0F0F0F), 0x01010101, sum);
}

// LANES lanes add up a part of `chunks` · 16 bytes.
KERNEL(256, 1) code_sums(const Words4* __restrict__ codes, float* __restrict__ sums, int64 parts, int chunks) {
    const int64 part = (static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
    const Words4* const first = codes + least(part, parts - 1) * chunks;
    int sum = 0;
    for (int i = threadIdx.x % LANES; i < chunks; i += LANES) {
        const Words4 given = first[i];
        UNROLL for (int j = 0; j < 4; ++j) sum = added(given.word[j], sum);
    }
    UNROLL for (int mask = LANES / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, mask);
    if (part < parts && threadIdx.x % LANES == 0) sums[part] = static_cast<float>(sum);
}
