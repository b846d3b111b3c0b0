// Sixteen tokens' keys and values at once into a tile of the cache: whole lines instead of single words.
#pragma once
#include <type_traits>

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

// keys[i] and values[i]: of token i, `dim` elements of one or two bytes, a multiple of a line. The tile is written whole.
template <class C>
void store_tile(const C* const (&keys)[16], const C* const (&values)[16], int dim, char* key_tile, char* value_tile) {
    typedef std::conditional_t<sizeof(C) == 1, vb, vh> Part;
    const int S = 4 / sizeof(C), bits = 8 * sizeof(C);
    const char* from[16];
    for (int i = 0; i < 16; i++) from[i] = (const char*)keys[i];
    for (int d = 0; d < dim; d += 16 * S) transpose(from, int64_t(d) * sizeof(C), key_tile + int64_t(d) * 16 * sizeof(C));
    for (int i = 0; i < 16; i += S, value_tile += int64_t(dim) * 4)
        for (int d = 0; d < dim; d += WIDTH) {
            vu word = {};
            for (int j = 0; j < S; j++) {
                Part part;
                memcpy(&part, values[i + j] + d, sizeof part);
                word |= words_of(part) << (bits * j);
            }
            memcpy(value_tile + d * 4, &word, sizeof word);
        }
}

}  // namespace
}  // namespace place_tiles
