// The linear on full activations, of any sizes: a warp sums one output, a code at a time.
#include "weight_only.cuh"

KERNEL(128, 1) weight_only_any(WEIGHT_ONLY_ARGUMENTS) {
    const WeightOnly of = WEIGHT_ONLY;
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int64 output = static_cast<int64>(blockIdx.x) * 4 + threadIdx.x / 32;
    const int64 t = output / out_features, n = output % out_features;
    if (t >= tokens) return;
    WIDE sum[1] = {0};
    for (int k = lane; k < in_features; k += 32) {
        const uint8 byte = qweight[n * of.row_bytes() + k * CODE_BITS / 8];
        const int code = PACKED ? byte >> (k % 2 * 4) & 15 : byte;
        const int64 grid = of.grid_of(n, k);
        const WIDE decoded = static_cast<WIDE>(scale[grid]) * (static_cast<float>(code) - of.zero_of(grid));
        sum[0] = fused(exact(x[t * in_features + k]), decoded, sum[0]);
    }
    reduce<32>(sum, Sum());
    if (lane == 0) of.finish(sum[0], t, n);
}
