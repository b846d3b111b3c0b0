// Float vectors of the machine's width, in GCC's vector extensions: one source for every instruction set.
//
// A vector type wider than the machine's would make the compiler spill, so that loops go over `LANES` elements at a time.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace engine {

#if defined(__AVX512F__)
const int LANES = 16;
#elif defined(__AVX2__)
const int LANES = 8;
#else
const int LANES = 4;
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));
typedef int8_t vb __attribute__((vector_size(LANES)));

template <class V>
inline V load_as(const void* from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}

template <class V>
inline void store_as(void* to, V value) {
    memcpy(to, &value, sizeof value);
}

#if defined(__AVX512F__)
inline vf all_of(float x) { return vf(_mm512_set1_ps(x)); }  // 0 + x is an addition: -0 is not 0
inline vi all_of(int32_t x) { return vi(_mm512_set1_epi32(x)); }
#else
inline vf all_of(float x) { return vf{} + x; }
inline vi all_of(int32_t x) { return vi{} + x; }
#endif
// LANES floats, or zeros; without a branch where the machine can.
#if defined(__AVX512F__)
inline vf load_unless(bool not_at_all, const float* from) { return vf(_mm512_maskz_loadu_ps(not_at_all ? 0 : 0xffff, from)); }
#else
inline vf load_unless(bool not_at_all, const float* from) { return not_at_all ? vf{} : load_as<vf>(from); }
#endif
inline vf splat(float x) { return all_of(x); }
inline vf as_float(vu bits) { return vf(bits); }
inline vu as_bits(vf x) { return vu(x); }
#if defined(__AVX512F__)
inline bool any(vi mask) { return _mm512_test_epi32_mask(__m512i(mask), __m512i(mask)) != 0; }
#elif defined(__AVX2__)
inline bool any(vi mask) { return !_mm256_testz_si256(__m256i(mask), __m256i(mask)); }
#else
inline bool any(vi mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
#endif
inline vf select(vi mask, vf yes, vf no) { return vf((vi(yes) & mask) | (vi(no) & ~mask)); }

// p + distance, by itself: GCC would multiply distances of several pointers in vectors, and wait for them.
template <class T>
inline const T* apart(const T* p, int64_t distance) {
    p += distance;
    asm("" : "+r"(p));
    return p;
}

// bfloat16.
#if defined(__AVX512F__)
inline vu words_of(vh h) { return vu(_mm512_cvtepu16_epi32(__m256i(h))); }  // GCC 12 converts the halves one after the other
#else
inline vu words_of(vh h) { return __builtin_convertvector(h, vu); }
#endif
inline vf from_bf16(vh h) { return as_float(words_of(h) << 16); }

inline vh to_bf16(vf x) {
    const vu bits = as_bits(x);
    const vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const vu number = vu(vi(x == x));
    return __builtin_convertvector((rounded & number) | (~number & 0x7fc0), vh);
}

inline float from_bf16(uint16_t h) {
    const uint32_t bits = uint32_t(h) << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x == x ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : uint16_t(0x7fc0);
}

// float16: in hardware where there is F16C.
inline float from_f16(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t bits = rest >= 0x7c00 ? 0x7f800000 | ((rest & 0x3ff) << 13) : (rest << 13) + (112u << 23);
    float x;
    if (rest < 0x400) {
        x = float(rest) * (1.0f / 16777216.0f);
        memcpy(&bits, &x, 4);
    }
    bits |= sign;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint16_t to_f16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (bits >= 0x47800000) return uint16_t(sign | 0x7c00);
    if (bits < 0x38800000) {  // subnormal: adding a half makes the float unit round at the right place
        float y;
        memcpy(&y, &bits, 4);
        y += 0.5f;
        uint32_t rounded;
        memcpy(&rounded, &y, 4);
        return uint16_t(sign | (rounded - 0x3f000000));
    }
    return uint16_t(sign | ((bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13));
}

#if defined(__AVX512F__)
inline vf from_f16(vh h) { return vf(_mm512_maskz_cvtph_ps(0xffff, __m256i(h))); }
inline vh to_f16(vf x) { return vh(_mm512_maskz_cvtps_ph(0xffff, __m512(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
#elif defined(__F16C__)
inline vf from_f16(vh h) { return vf(_mm256_cvtph_ps(__m128i(h))); }
inline vh to_f16(vf x) { return vh(_mm256_cvtps_ph(__m256(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
#else
inline vf from_f16(vh h) {
    vf x;
    for (int i = 0; i < LANES; i++) x[i] = from_f16(uint16_t(h[i]));
    return x;
}
inline vh to_f16(vf x) {
    vh h;
    for (int i = 0; i < LANES; i++) h[i] = to_f16(float(x[i]));
    return h;
}
#endif

// Element types in memory, as template arguments.
struct F32 {
    typedef float Element;
    static vf load(const float* from) { return load_as<vf>(from); }
    static void store(float* to, vf x) { store_as(to, x); }
    static float get(const float* from) { return *from; }
    static void put(float* to, float x) { *to = x; }
    static vf round(vf x) { return x; }
};

struct BF16 {
    typedef uint16_t Element;
    static vf load(const uint16_t* from) { return from_bf16(load_as<vh>(from)); }
    static void store(uint16_t* to, vf x) { store_as(to, narrow(x)); }
    static float get(const uint16_t* from) { return from_bf16(*from); }
    static void put(uint16_t* to, float x) { *to = to_bf16(x); }
    static vf round(vf x) { return from_bf16(narrow(x)); }
#if defined(__AVX512BF16__)
    static vh narrow(vf x) { return vh(_mm512_cvtneps_pbh(__m512(x))); }
#else
    static vh narrow(vf x) { return to_bf16(x); }
#endif
};

struct F16 {
    typedef uint16_t Element;
    static vf load(const uint16_t* from) { return from_f16(load_as<vh>(from)); }
    static void store(uint16_t* to, vf x) { store_as(to, to_f16(x)); }
    static float get(const uint16_t* from) { return from_f16(*from); }
    static void put(uint16_t* to, float x) { *to = to_f16(x); }
    static vf round(vf x) { return from_f16(to_f16(x)); }
};

inline float sum(vf x) {
    float total[LANES];
    store_as(total, x);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) total[i] += total[i + width];
    return total[0];
}

}  // namespace engine
