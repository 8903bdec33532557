// What both linears on full activations take: Y[t,n] = Σ_g Δ[n,g] Σ_{k∈g} x[t,k] (q[n,k] - z[n,g]) + bias[n].
#pragma once
#include "vectors.cuh"
#include "reduction.cuh"

constexpr int CODE_BITS = PACKED ? 4 : 8;

DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

DEVICE void rounded(double x, double& out) { out = x; }
template <typename T>
DEVICE void rounded(float x, T& out) {
    from_float(x, out);
}

struct WeightOnly {
    const X* x;            // [tokens, in]
    const uint8* qweight;  // as stored
    const float* scale;    // Δ [out, groups]
    const int16* zero;     // z [out, groups], null if it is `offset`
    const BIAS* bias;      // [out], or null
    X* out;                // Y [tokens, out]
    int64 tokens, out_features;
    int in_features, groups, offset;

    DEVICE int64 row_bytes() const { return static_cast<int64>(in_features) * CODE_BITS / 8; }
    DEVICE int64 grid_of(int64 n, int k) const { return n * groups + k / (in_features / groups); }
    DEVICE float zero_of(int64 grid) const { return static_cast<float>(zero == nullptr ? offset : __ldg(zero + grid)); }

    // Adds the bias and stores.
    DEVICE void finish(WIDE y, int64 t, int64 n) const {
        if (bias != nullptr) y += static_cast<WIDE>(exact(bias[n]));
        rounded(y, out[t * out_features + n]);
    }
};
#define WEIGHT_ONLY_ARGUMENTS                                                                                       \
    const X *__restrict__ x, const uint8 *__restrict__ qweight, const float *__restrict__ scale,                    \
        const int16 *__restrict__ zero, const BIAS *__restrict__ bias, X *__restrict__ out, int64 tokens,           \
        int64 out_features, int in_features, int groups, int offset
#define WEIGHT_ONLY                                                                                                 \
    WeightOnly { x, qweight, scale, zero, bias, out, tokens, out_features, in_features, groups, offset }
