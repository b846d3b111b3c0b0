// Sixteen float lanes on any processor: one AVX-512 register, two AVX ones, or four of 16 bytes; and the element types of tensors.
//
// Written with the vector extensions of GCC and Clang at the machine's width (wider vectors are spilled). NaN passes through everything.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX__) || defined(__F16C__)
#include <immintrin.h>
#endif

#include "abi.h"
#include "vector.h"

namespace lanes {
namespace {

#if defined(__AVX512F__)
#define LANES_PARTS 1
#define LANES_EACH(step) step(0)
#elif defined(__AVX__)
#define LANES_PARTS 2
#define LANES_EACH(step) step(0) step(1)
#else
#define LANES_PARTS 4
#define LANES_EACH(step) step(0) step(1) step(2) step(3)
#endif

const int WIDTH = 16 / LANES_PARTS;
typedef float vf __attribute__((vector_size(WIDTH * 4)));
typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t vh __attribute__((vector_size(WIDTH * 2)));
typedef uint8_t vb __attribute__((vector_size(WIDTH)));

struct F {
    vf p[LANES_PARTS];
};
struct U {
    vu p[LANES_PARTS];
};

#define INLINE inline __attribute__((always_inline))

INLINE vf spread(float x) { return vf{} + x; }

INLINE F all(float x) {
    F r;
#define STEP(i) r.p[i] = spread(x);
    LANES_EACH(STEP)
#undef STEP
    return r;
}

#define LANES_BINARY(name, expression)         \
    INLINE F name(const F& a, const F& b) {    \
        F r;                                   \
        LANES_EACH(expression)                 \
        return r;                              \
    }
#define STEP(i) r.p[i] = a.p[i] + b.p[i];
LANES_BINARY(operator+, STEP)
#undef STEP
#define STEP(i) r.p[i] = a.p[i] - b.p[i];
LANES_BINARY(operator-, STEP)
#undef STEP
#define STEP(i) r.p[i] = a.p[i] * b.p[i];
LANES_BINARY(operator*, STEP)
#undef STEP
#define STEP(i) r.p[i] = a.p[i] / b.p[i];
LANES_BINARY(operator/, STEP)
#undef STEP
// The larger; NaN where either is NaN.
#define STEP(i) r.p[i] = ((a.p[i] > b.p[i]) | (a.p[i] != a.p[i])) ? a.p[i] : b.p[i];
LANES_BINARY(larger, STEP)
#undef STEP

// At most `most` and at least -most; NaN stays.
INLINE F within(const F& a, float most) {
    const vf high = spread(most), low = spread(-most);
    F r;
#if defined(__AVX512F__)
    r.p[0] = (vf)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)a.p[0]));  // the second, where it is NaN
#else
#define STEP(i) r.p[i] = a.p[i] > high ? high : a.p[i] < low ? low : a.p[i];
    LANES_EACH(STEP)
#undef STEP
#endif
    return r;
}

// a · b + c, rounded once where the processor can.
INLINE F fma(const F& a, const F& b, const F& c) {
    F r;
#if defined(__AVX512F__)
    r.p[0] = (vf)_mm512_fmadd_ps((__m512)a.p[0], (__m512)b.p[0], (__m512)c.p[0]);
#elif defined(__FMA__)
    r.p[0] = (vf)_mm256_fmadd_ps((__m256)a.p[0], (__m256)b.p[0], (__m256)c.p[0]);
    r.p[1] = (vf)_mm256_fmadd_ps((__m256)a.p[1], (__m256)b.p[1], (__m256)c.p[1]);
#else
#define STEP(i) r.p[i] = a.p[i] * b.p[i] + c.p[i];
    LANES_EACH(STEP)
#undef STEP
#endif
    return r;
}

// Adds in a fixed order: halves onto each other, whatever the registers' width.
INLINE float total(const F& a) {
#if defined(__AVX512F__)
    const __m256 x = _mm256_add_ps(_mm512_castps512_ps256((__m512)a.p[0]), (__m256)_mm512_extractf64x4_pd((__m512d)a.p[0], 1));
    const __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
#else
    float x[16];
    memcpy(x, &a, 64);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
#endif
}

// The largest lane that is a number.
INLINE float largest(const F& a) {
#if defined(__AVX512F__)
    const __m256 x = _mm256_max_ps(_mm512_castps512_ps256((__m512)a.p[0]), (__m256)_mm512_extractf64x4_pd((__m512d)a.p[0], 1));
    const __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
#else
    float x[16];
    memcpy(x, &a, 64);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
#endif
}

INLINE U words(const void* from) {
    U r;
    memcpy(&r, from, 64);
    return r;
}

// The larger of each; b where either is NaN.
INLINE F most(const F& a, const F& b) {
    F r;
#if defined(__AVX512F__)
    r.p[0] = (vf)_mm512_max_ps((__m512)a.p[0], (__m512)b.p[0]);
#else
#define STEP(i) r.p[i] = a.p[i] > b.p[i] ? a.p[i] : b.p[i];
    LANES_EACH(STEP)
#undef STEP
#endif
    return r;
}

// ---- Element types: load 16, store 16.

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};
struct e4m3 {
    uint8_t bits;
};
struct e5m2 {
    uint8_t bits;
};

// Elements of two bytes and of one as words.
using engine::words_of;
INLINE vu words_of(vb b) {
#if defined(__AVX512F__)
    return (vu)_mm512_cvtepu8_epi32((__m128i)b);
#else
    return __builtin_convertvector(b, vu);
#endif
}

INLINE F load(const float* from) {
    F r;
    memcpy(&r, from, 64);
    return r;
}

INLINE F load(const bf16* from) {
    F r;
#define STEP(i) { vh h; memcpy(&h, from + i * WIDTH, sizeof h); r.p[i] = (vf)(words_of(h) << 16); }
    LANES_EACH(STEP)
#undef STEP
    return r;
}

// Half precision in integer arithmetic: scaling by 2^112 (2^120 for e4m3) makes subnormals come out right.
INLINE vf widen_half(vu h) {
    const vu magnitude = (h & 0x7fffu) << 13;
    const vf value = (vf)magnitude * 0x1p112f;
    const vu special = (vu)((h & 0x7c00u) == 0x7c00u);
    return (vf)(((special & (magnitude | 0x7f800000u)) | (~special & (vu)value)) | ((h & 0x8000u) << 16));
}

INLINE F load(const f16* from) {
    F r;
#if defined(__AVX512F__)
    r.p[0] = (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__F16C__)
    r.p[0] = (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
    r.p[1] = (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + 8)));
#else
#define STEP(i) { vh h; memcpy(&h, from + i * WIDTH, sizeof h); r.p[i] = widen_half(__builtin_convertvector(h, vu)); }
    LANES_EACH(STEP)
#undef STEP
#endif
    return r;
}

// 8-bit floats in the low bytes of words; the other bits are zeros.
INLINE vf widen_byte(vu w, e4m3) {
    const vf value = (vf)((w & 0x7fu) << 20) * 0x1p120f;
    const vu nan = (vu)((w & 0x7fu) == 0x7fu);
    return (vf)(((vu)value | (nan & 0x7fc00000u)) | ((w & 0x80u) << 24));
}
INLINE vf widen_byte(vu w, e5m2) { return widen_half(w << 8); }

// Byte number `byte` of each word.
template <class C>
INLINE F widen_bytes(const U& w, int byte) {
    F r;
#define STEP(i) r.p[i] = widen_byte((w.p[i] >> (8 * byte)) & 0xffu, C{});
    LANES_EACH(STEP)
#undef STEP
    return r;
}

template <class C>
INLINE F load_bytes(const C* from) {
    F r;
#define STEP(i) { vb b; memcpy(&b, from + i * WIDTH, sizeof b); r.p[i] = widen_byte(words_of(b), C{}); }
    LANES_EACH(STEP)
#undef STEP
    return r;
}
INLINE F load(const e4m3* from) { return load_bytes(from); }
INLINE F load(const e5m2* from) { return load_bytes(from); }

INLINE vu narrow_bf16(vf x) {
    const vu bits = (vu)x;
    const vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const vu nan = (vu)(x != x);
    return (nan & (0x7fc0u | (bits >> 16))) | (~nan & rounded);
}

INLINE void store(float* to, const F& a) { memcpy(to, &a, 64); }

INLINE void store(bf16* to, const F& a) {
#if defined(__AVX512BF16__)
    const __m256bh h = _mm512_cvtneps_pbh((__m512)a.p[0]);
    memcpy(to, &h, 32);
#else
#define STEP(i) { const vh h = __builtin_convertvector(narrow_bf16(a.p[i]), vh); memcpy(to + i * WIDTH, &h, sizeof h); }
    LANES_EACH(STEP)
#undef STEP
#endif
}

// Round to nearest even into half precision, one value.
INLINE uint16_t half_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 lets the addition round
        float value;
        memcpy(&value, &magnitude, 4);
        value += 0.5f;
        uint32_t shifted;
        memcpy(&shifted, &value, 4);
        return uint16_t(sign | (shifted - 0x3f000000u));
    }
    return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

INLINE void store(f16* to, const F& a) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)a.p[0], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)a.p[0], _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i*)(to + 8), _mm256_cvtps_ph((__m256)a.p[1], _MM_FROUND_TO_NEAREST_INT));
#else
    float x[16];
    memcpy(x, &a, 64);
    for (int i = 0; i < 16; i++) to[i].bits = half_bits(x[i]);
#endif
}

// The values as type A holds them: what a separate layer would have handed on.
template <class A>
INLINE F rounded(const F& x);
template <>
INLINE F rounded<float>(const F& x) { return x; }
template <>
INLINE F rounded<bf16>(const F& x) {
    F r;
#if defined(__AVX512BF16__)
    r.p[0] = (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x.p[0])), 16);
#else
#define STEP(i) r.p[i] = (vf)(narrow_bf16(x.p[i]) << 16);
    LANES_EACH(STEP)
#undef STEP
#endif
    return r;
}
template <>
INLINE F rounded<f16>(const F& x) {
    f16 narrow[16];
    store(narrow, x);
    return load(narrow);
}

// Round to nearest even into the low bytes of words.
INLINE vu narrow_byte(vf x, int mantissa, int bias, uint32_t overflow, uint32_t infinity) {
    const vu bits = (vu)x, magnitude = bits & 0x7fffffffu, power = bits & 0x7f800000u;
    const int shift = 23 - mantissa;
    const vu lowest = vu{} + (uint32_t(127 - bias + 1) << 23);  // the smallest normal number's; subnormals have the same last place
    const vu least = power > lowest ? power : lowest, large = least + (uint32_t(shift) << 23);
    const vu last = (vu)((vf)magnitude + (vf)large) - large;    // what has the same last place lets the addition round
    const vu finite = last + ((least - lowest) >> shift);
    const vu number = magnitude >= overflow ? vu{} + infinity : finite;
    return ((bits >> 24) & 0x80u) | (magnitude > 0x7f800000u ? vu{} + 0x7fu : number);
}
// e4m3 has no infinity: what is beyond 448 becomes NaN, as torch casts.
INLINE vu narrow_byte(vf x, e4m3) { return narrow_byte(x, 3, 7, 0x43e80001u, 0x7fu); }
INLINE vu narrow_byte(vf x, e5m2) { return narrow_byte(x, 2, 15, 0x47700000u, 0x7cu); }

template <class C>
INLINE void store_bytes(C* to, const F& a) {
#define STEP(i) { const vb b = __builtin_convertvector(narrow_byte(a.p[i], C{}), vb); memcpy((void*)(to + i * WIDTH), &b, sizeof b); }
    LANES_EACH(STEP)
#undef STEP
}
INLINE void store(e4m3* to, const F& a) { store_bytes(to, a); }
INLINE void store(e5m2* to, const F& a) { store_bytes(to, a); }

INLINE void narrow(float x, float* to) { *to = x; }
INLINE void narrow(float x, f16* to) { to->bits = half_bits(x); }
INLINE void narrow(float x, bf16* to) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    to->bits = uint16_t(x != x ? 0x7fc0u | (bits >> 16) : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The first n < 16 elements; the other lanes are 0.
template <class T>
INLINE F load_some(const T* from, int n) {
    T whole[16] = {};
    memcpy(whole, from, n * sizeof(T));
    return load(whole);
}

template <class T>
INLINE void store_some(T* to, const F& a, int n) {
    T whole[16];
    store(whole, a);
    memcpy(to, whole, n * sizeof(T));
}

template <class T>
INLINE F take(const T* from, int64_t left) {
    return left >= 16 ? load(from) : load_some(from, int(left));
}
template <class T>
INLINE void put(T* to, const F& a, int64_t left) {
    if (left >= 16)
        store(to, a);
    else
        store_some(to, a, int(left));
}

}  // namespace
}  // namespace lanes

#include "functions.h"
