// Static shares of row operations: what is small stays with one thread.
#pragma once
#include <stdint.h>

namespace share {
namespace {

// Elements below which another thread is not worth its wake-up.
const int64_t LEAST = 4096;

struct Share {
    int64_t begin, end;
};

// This thread's units of `units`, each of `size` elements.
inline Share of(int64_t units, int64_t size, int thread, int threads) {
    int64_t useful = units * size / LEAST;
    useful = useful < 1 ? 1 : useful > threads ? threads : useful;
    if (thread >= useful) return {0, 0};
    return {units * thread / useful, units * (thread + 1) / useful};
}

}  // namespace
}  // namespace share

// Calls f<type>(arguments, thread, threads) for the element type of the activations.
#define ENGINE_FOR_TYPE(type, call)                    \
    switch (type) {                                    \
        case ENGINE_BF16: { using A = lanes::bf16; call; break; } \
        case ENGINE_F16: { using A = lanes::f16; call; break; }   \
        default: { using A = float; call; break; }                \
    }
