// Numbers, and how they are written down and read. Nothing here differs between a GPU and a CPU but two conversions.
#pragma once

using int8 = signed char;
using uint8 = unsigned char;
using int16 = short;
using uint16 = unsigned short;
using uint32 = unsigned int;
using int64 = long long;
using uint64 = unsigned long long;

struct bfloat16 {
    uint16 bits;
};
struct float16 {
    uint16 bits;
};

struct alignas(8) Words2 {
    uint32 word[2];
};
struct alignas(16) Words4 {
    uint32 word[4];
};

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(double x) { return static_cast<float>(x); }
DEVICE float to_float(bfloat16 x) { return __int_as_float(static_cast<int>(x.bits) << 16); }
DEVICE float to_float(float16 x) { return half_bits_to_float(x.bits); }

// Rounded to the nearest, half to even.
DEVICE void from_float(float x, float& out) { out = x; }
DEVICE void from_float(float x, double& out) { out = x; }
DEVICE void from_float(float x, bfloat16& out) { out.bits = float_to_bfloat_bits(x); }
DEVICE void from_float(float x, float16& out) { out.bits = float_to_half_bits(x); }

template <typename T>
DEVICE T converted(float x) {
    T out;
    from_float(x, out);
    return out;
}

template <typename T>
DEVICE constexpr T least(T a, T b) {
    return a < b ? a : b;
}
template <typename T>
DEVICE constexpr T largest(T a, T b) {
    return a < b ? b : a;
}
DEVICE constexpr int64 parts_of(int64 size, int64 part) { return (size + part - 1) / part; }
