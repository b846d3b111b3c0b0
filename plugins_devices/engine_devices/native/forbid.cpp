// Minus infinity where a mask forbids. Words of all ones are passed over, words of zeros only written.
#include "forbid.h"

#include <string.h>

#include "pool.h"

namespace {

#if defined(__AVX__)
const int BYTES = 32;
#else
const int BYTES = 16;
#endif
// Words of a mask that one thread takes.
const int64_t CHUNK = 256;

template <class E>
struct Register {
    typedef E type __attribute__((vector_size(BYTES)));
    static const int LANES = BYTES / sizeof(E);
};

// The 32 columns of one word.
template <class E>
inline void forbid_word(E* x, uint32_t word, E minus) {
    typedef typename Register<E>::type V;
    const int lanes = Register<E>::LANES;
    if (!word) {
        const V whole = V{} + minus;
        for (int i = 0; i < 32; i += lanes) memcpy(x + i, &whole, BYTES);
        return;
    }
    V place;
    for (int lane = 0; lane < lanes; lane++) place[lane] = E(E(1) << lane);
    for (int i = 0; i < 32; i += lanes) {
        V v;
        memcpy(&v, x + i, BYTES);
        const E field = E(word >> i);  // named: with the sanitizer's check around it the shift would count as an int
        const V out = V(((V{} + field) & place) == 0);
        v = (v & ~out) | ((V{} + minus) & out);
        memcpy(x + i, &v, BYTES);
    }
}

// The columns of the words from `begin` to `end` of the mask number `index`.
template <class E>
void forbid_words(const engine_forbid_arguments& a, E minus, int64_t index, int64_t begin, int64_t end) {
    const uint32_t* bits = a.bits + index * a.words;
    E* x = (E*)a.logits + a.rows[index] * a.row;
    for (int64_t w = begin; w < end; w++) {
        const uint32_t word = bits[w];
        if (word == 0xffffffffu) continue;
        if (32 * w + 32 <= a.size) {
            forbid_word(x + 32 * w, word, minus);
            continue;
        }
        for (int64_t i = 32 * w; i < a.size; i++)
            if (!(word >> (i - 32 * w) & 1)) x[i] = minus;
    }
}

template <class E>
void forbid(const engine_forbid_arguments& a, E minus) {
    const int64_t used = (a.size + 31) / 32, chunks = (used + CHUNK - 1) / CHUNK;
    for (int64_t unit; (unit = engine_claim(0, 1)) < a.count * chunks;) {
        const int64_t index = unit / chunks, begin = unit % chunks * CHUNK, end = begin + CHUNK < used ? begin + CHUNK : used;
        forbid_words(a, minus, index, begin, end);
    }
}

}  // namespace

extern "C" void engine_forbid(const void* arguments, int, int) {
    const engine_forbid_arguments& a = *(const engine_forbid_arguments*)arguments;
    switch (a.type) {
        case ENGINE_BF16: return forbid<uint16_t>(a, 0xff80);
        case ENGINE_F16: return forbid<uint16_t>(a, 0xfc00);
        default: return forbid<uint32_t>(a, 0xff800000u);
    }
}

void engine_forbid_row(const engine_forbid_arguments* arguments, int64_t index) {
    const engine_forbid_arguments& a = *arguments;
    const int64_t used = (a.size + 31) / 32;
    switch (a.type) {
        case ENGINE_BF16: return forbid_words<uint16_t>(a, 0xff80, index, 0, used);
        case ENGINE_F16: return forbid_words<uint16_t>(a, 0xfc00, index, 0, used);
        default: return forbid_words<uint32_t>(a, 0xff800000u, index, 0, used);
    }
}
