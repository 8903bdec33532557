// Neighbouring values, loaded and stored at once.
#pragma once

template <typename T, int N>
struct alignas(least(sizeof(T) * N, sizeof(Words4))) Vector {
    T value[N];
};

// From an address that is a multiple of all their bytes, or of 16.
template <typename T, int N>
DEVICE void load(T (&value)[N], const T* from) {
    const auto all = *reinterpret_cast<const Vector<T, N>*>(from);
    UNROLL for (int i = 0; i < N; ++i) value[i] = all.value[i];
}
template <typename T, int N>
DEVICE void store(const T (&value)[N], T* to) {
    Vector<T, N> all;
    UNROLL for (int i = 0; i < N; ++i) all.value[i] = value[i];
    *reinterpret_cast<Vector<T, N>*>(to) = all;
}

// In a type that holds every value of the given one and that a GPU calculates with.
DEVICE double exact(double x) { return x; }
template <typename T>
DEVICE float exact(T x) {
    return to_float(x);
}
