// What packing does with panels: who takes which, and rows turned into columns.
#pragma once
#include "linear.h"
#include "pool.h"
#include "vector.h"

namespace engine {
namespace {

const int64_t HUGE_PAGE = 2 << 20;

// Calls pack(panel) for the panels of a weight, which are written for the first time. Threads that come one after the other take
// panels of different huge pages: on the same one each would clear a page of its own, and all but one would throw theirs away.
template <class PACK>
void each_panel(int64_t panels, int64_t panel_bytes, int threads, PACK pack) {
    const int64_t together = panel_bytes < HUGE_PAGE ? HUGE_PAGE / panel_bytes : 1, round = together * threads;
    for (int64_t place; (place = engine_claim(0, 1)) < round_up(panels, round);) {
        const int64_t panel = place / round * round + place % threads * together + place % round / threads;
        if (panel < panels) pack(panel);
    }
}

// a0 b0 a1 b1 …: of the lower and of the upper halves of two vectors.
inline void interleave(vu a, vu b, vu& low, vu& high) {
#if defined(__AVX512F__)
    const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    low = vu(_mm512_permutex2var_epi32(__m512i(a), lower, __m512i(b)));
    high = vu(_mm512_permutex2var_epi32(__m512i(a), upper, __m512i(b)));
#elif defined(__AVX2__)
    const __m256i even = _mm256_unpacklo_epi32(__m256i(a), __m256i(b)), odd = _mm256_unpackhi_epi32(__m256i(a), __m256i(b));
    low = vu(_mm256_permute2x128_si256(even, odd, 0x20));
    high = vu(_mm256_permute2x128_si256(even, odd, 0x31));
#else
    for (int i = 0; i < LANES / 2; i++) {
        low[2 * i] = a[i], low[2 * i + 1] = b[i];
        high[2 * i] = a[LANES / 2 + i], high[2 * i + 1] = b[LANES / 2 + i];
    }
#endif
}

// A square of LANES rows of LANES words, rows `stride` bytes apart → its columns, PANEL words apart. Every round moves one bit of
// a word's column number to its row number, and one the other way.
inline void turn_square(const uint8_t* from, int64_t stride, uint32_t* to) {
    vu rows[LANES], turned[LANES];
    for (int i = 0; i < LANES; i++) rows[i] = load_as<vu>(from + i * stride);
    for (int round = 1; round < LANES; round *= 2) {
        for (int i = 0; i < LANES / 2; i++) interleave(rows[i], rows[i + LANES / 2], turned[2 * i], turned[2 * i + 1]);
        for (int i = 0; i < LANES; i++) rows[i] = turned[i];
    }
    for (int i = 0; i < LANES; i++) store_as(to + i * PANEL, rows[i]);
}

// PANEL rows of `words` 32-bit words, a multiple of LANES: calls put(word, lines) with lines[LANES][PANEL] from each LANES-th word on.
template <class PUT>
void turn_panel(const void* rows, int64_t stride, int64_t words, PUT put) {
    alignas(64) uint32_t lines[LANES * PANEL];
    const uint8_t* from = static_cast<const uint8_t*>(rows);
    for (int64_t word = 0; word < words; word += LANES) {
        for (int row = 0; row < PANEL; row += LANES) turn_square(from + row * stride + 4 * word, stride, lines + row);
        put(word, lines);
    }
}

}  // namespace
}  // namespace engine
