// The matrix unit (AMX): eight registers of up to sixteen rows of 64 bytes, and products of them.
//
// Registers 0 to 3 hold sums [row][16 outputs] of 32 bits: 0 and 1 of the first sixteen rows, 2 and 3 of the others. 4 and 5 hold
// those rows of x, 6 and 7 the weights of 16 outputs each: a row of 64 bytes for every two bf16, or four bytes, of an input.
#pragma once

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
#define ENGINE_AMX 1
#include <stdint.h>

#include <initializer_list>

namespace amx {

const int ROWS = 32;   // that registers hold at once
const int LINE = 64;   // bytes of a row of a register
const int TILE = 1024;  // bytes of a register

// Instructions by themselves: what the compiler knows of them says nothing of the memory that they read.
template <int T>
inline void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}
template <int T>
inline void clear() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
// Sums += x · weights: pairs of bf16, in their order all first ones, all second ones, then both to the sum.
template <int SUMS, int X, int WEIGHTS>
inline void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(X), "i"(WEIGHTS));
}
// The same of four signed bytes of x and unsigned ones of weights; exact.
template <int SUMS, int X, int WEIGHTS>
inline void multiply_bytes() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(X), "i"(WEIGHTS));
}

// The registers' shapes, until release(): those of the last number of rows asked for. What a thread had in them before is gone.
class Registers {
    int rows = 0, deep = 0;

    struct alignas(64) Shapes {
        uint8_t palette = 1, start = 0, none[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};

        void set(int tile, int count) { rows[tile] = uint8_t(count), bytes[tile] = uint8_t(count ? LINE : 0); }
    };

public:
    Registers() {}
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;
    ~Registers() { release(); }

    // Else every switch to another thread would save eight kilobytes.
    void release() {
        if (rows) asm volatile("tilerelease");
        rows = 0;
    }

    // For 1 to 32 rows, and weights of `depth` rows: pairs of bf16, or fours of bytes.
    void shape(int count, int depth = 16) {
        if (count == rows && depth == deep) return;
        rows = count, deep = depth;
        Shapes shapes;
        const int upper = count < 16 ? count : 16, lower = count - upper;
        for (int tile : {0, 1, 4}) shapes.set(tile, upper);
        for (int tile : {2, 3, 5}) shapes.set(tile, lower);
        for (int tile : {6, 7}) shapes.set(tile, depth);
        for (int tile : {4, 5}) shapes.bytes[tile] = uint16_t(shapes.rows[tile] ? 4 * depth : 0);
        asm volatile("ldtilecfg (%0)" : : "r"(&shapes) : "memory");
    }
};

}  // namespace amx
#endif
