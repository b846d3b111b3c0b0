// Sixteen tokens' keys and values at once into a tile of the cache: whole lines instead of single words.
#pragma once
#include "lanes.h"

namespace place_tiles {
namespace {

using namespace lanes;

#if defined(__AVX512F__)
// Sixteen rows of sixteen words become columns.
inline void transpose(const char* const (&from)[16], int64_t offset, char* to) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from[i] + offset);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)  // words of column 4 · chunk + k, rows i … i + 3, in a[i + k]
        for (int k = 0; k < 2; k++) {
            a[i + 2 * k] = _mm512_unpacklo_epi64(b[i + k], b[i + k + 2]);
            a[i + 2 * k + 1] = _mm512_unpackhi_epi64(b[i + k], b[i + k + 2]);
        }
    for (int k = 0; k < 4; k++) {
        const __m512i low = _mm512_shuffle_i32x4(a[k], a[k + 4], 0x88), high = _mm512_shuffle_i32x4(a[k], a[k + 4], 0xdd);
        const __m512i lower = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0x88), higher = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0xdd);
        _mm512_storeu_si512(to + 64 * k, _mm512_shuffle_i32x4(low, lower, 0x88));
        _mm512_storeu_si512(to + 64 * (k + 8), _mm512_shuffle_i32x4(low, lower, 0xdd));
        _mm512_storeu_si512(to + 64 * (k + 4), _mm512_shuffle_i32x4(high, higher, 0x88));
        _mm512_storeu_si512(to + 64 * (k + 12), _mm512_shuffle_i32x4(high, higher, 0xdd));
    }
}
#else
inline void transpose(const char* const (&from)[16], int64_t offset, char* to) {
    for (int column = 0; column < 16; column++)
        for (int row = 0; row < 16; row++) memcpy(to + 64 * column + 4 * row, from[row] + offset + 4 * column, 4);
}
#endif

// keys[i] and values[i]: of token i, `dim` elements, a multiple of 32. The tile is written whole.
inline void store_tile(const bf16* const (&keys)[16], const bf16* const (&values)[16], int dim, char* key_tile, char* value_tile) {
    const char* from[16];
    for (int i = 0; i < 16; i++) from[i] = (const char*)keys[i];
    for (int d = 0; d < dim; d += 32) transpose(from, int64_t(d) * 2, key_tile + int64_t(d) * 32);
    for (int i = 0; i < 16; i += 2, value_tile += int64_t(dim) * 4)
        for (int d = 0; d < dim; d += 16) {
            vu even[LANES_PARTS], odd[LANES_PARTS];
#define STEP(n)                                                                 \
    {                                                                           \
        vh a, b;                                                                \
        memcpy(&a, values[i] + d + n * WIDTH, sizeof a);                        \
        memcpy(&b, values[i + 1] + d + n * WIDTH, sizeof b);                    \
        even[n] = __builtin_convertvector(a, vu), odd[n] = __builtin_convertvector(b, vu); \
        even[n] |= odd[n] << 16;                                                \
        memcpy(value_tile + (d + n * WIDTH) * 4, &even[n], sizeof even[n]);     \
    }
            LANES_EACH(STEP)
#undef STEP
        }
}

}  // namespace
}  // namespace place_tiles
