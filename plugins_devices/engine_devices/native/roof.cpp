// What the machine can do at most: reading memory, and multiplying in registers. For benchmarks, to compare kernels with.
#include "pool.h"
#include "vector.h"
#include "abi.h"
#include "amx.h"

using namespace engine;

extern "C" {

// Arguments of engine_read_roof: reads `bytes` (a multiple of 4096) once. `sink` receives a number that depends on them.
struct read_args {
    const void* memory;
    int64_t bytes;
    int32_t* sink;
};

// Arguments of engine_multiply_roof: each thread does `rounds` rounds of engine_multiply_roof_operations(kind).
struct multiply_args {
    int64_t rounds;
    int32_t kind;  // ENGINE_F32, ENGINE_BF16 or ENGINE_I8
    float* sink;
};
}

namespace {

#if defined(__AVX512F__)
const int CHAINS = 16;
#else
const int CHAINS = 12;
#endif

// Makes the compiler believe that the register's content matters.
template <class V>
inline void keep(V& value) {
#if defined(__AVX512F__)
    asm volatile("" : "+v"(value));
#elif defined(__x86_64__)
    asm volatile("" : "+x"(value));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(value));
#endif
}

template <class V, class F>
float chains(int64_t rounds, V start, F step) {
    V sums[CHAINS];
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) sums[i] = start;
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) {
            V sum = step(sums[i]);
            keep(sum);
            sums[i] = sum;
        }
    // Only this copy's address is taken: that of a sum would keep all of them in memory, at half the speed.
    V all = sums[0];
#pragma GCC unroll 16
    for (int i = 1; i < CHAINS; i++) all += sums[i];
    float first;
    memcpy(&first, &all, 4);
    return first;
}

#if defined(ENGINE_AMX)
// As many products of whole registers as keep the matrix unit busy: of numbers as models have, since zeros make less heat and so more speed.
void multiply_registers(int kind, int64_t rounds) {
    alignas(64) uint16_t numbers[amx::TILE];
    uint32_t state = 1;
    for (uint16_t& number : numbers) {
        state = state * 1664525 + 1013904223;
        // A bf16 of either sign from 1 up to 4; its bytes are as good as any.
        number = uint16_t((state >> 16 & 0x80ff) | (state >> 31 ? 0x4000 : 0x3f80));
    }
    amx::Registers registers;
    registers.shape(amx::ROWS);
    amx::load<4>(numbers, amx::LINE), amx::load<5>(numbers + amx::TILE / 2, amx::LINE);
    amx::load<6>(numbers + amx::LINE, amx::LINE), amx::load<7>(numbers + amx::TILE / 4, amx::LINE);
    amx::clear<0>(), amx::clear<1>(), amx::clear<2>(), amx::clear<3>();
    for (int64_t round = 0; kind == ENGINE_BF16 && round < rounds; round++) {
        amx::multiply_bf16<0, 4, 6>(), amx::multiply_bf16<1, 4, 7>();
        amx::multiply_bf16<2, 5, 6>(), amx::multiply_bf16<3, 5, 7>();
    }
    for (int64_t round = 0; kind == ENGINE_I8 && round < rounds; round++) {
        amx::multiply_bytes<0, 4, 6>(), amx::multiply_bytes<1, 4, 7>();
        amx::multiply_bytes<2, 5, 6>(), amx::multiply_bytes<3, 5, 7>();
    }
}
#endif

}  // namespace

extern "C" {

void engine_read_roof(const void* arguments, int, int) {
    const read_args& a = *static_cast<const read_args*>(arguments);
    const int64_t part = 256 << 10;
    vi sums[4] = {};
    for (int64_t start; (start = engine_claim(0, part)) < a.bytes;) {
        const uint8_t* from = static_cast<const uint8_t*>(a.memory) + start;
        const int64_t size = a.bytes - start < part ? a.bytes - start : part;
        for (int64_t i = 0; i < size; i += 4 * int64_t(sizeof(vi))) {
            __builtin_prefetch(from + i + 4096, 0, 3);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) sums[k] ^= load_as<vi>(from + i + k * sizeof(vi));
        }
    }
    const vi all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    if (all[0] == 0x12345678) *a.sink = all[1];
}

// Multiplications and additions in one round of one thread for that kind; 0: this library has no such instruction.
int64_t engine_multiply_roof_operations(int kind) {
    if (kind == ENGINE_F32) return CHAINS * LANES * 2;
#if defined(ENGINE_AMX)
    if (kind == ENGINE_BF16) return 4 * 16 * 16 * 32 * 2;
    if (kind == ENGINE_I8) return 4 * 16 * 16 * 64 * 2;
#endif
#if defined(__AVX512BF16__)
    if (kind == ENGINE_BF16) return CHAINS * 64;
#endif
#if defined(__AVX512VNNI__)
    if (kind == ENGINE_I8) return CHAINS * 128;
#endif
    return 0;
}

void engine_multiply_roof(const void* arguments, int, int) {
    const multiply_args& a = *static_cast<const multiply_args*>(arguments);
    float total = 0;
    if (a.kind == ENGINE_F32) {
        const vf x = splat(1.0f + float(a.rounds) * 1e-20f);
        total = chains<vf>(a.rounds, vf{}, [x](vf sum) { return sum + x * x; });
    }
#if defined(ENGINE_AMX)
    if (a.kind != ENGINE_F32) return multiply_registers(a.kind, a.rounds);
#endif
#if defined(__AVX512BF16__)
    if (a.kind == ENGINE_BF16) {
        const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f803f80);
        total = chains<__m512>(a.rounds, _mm512_setzero_ps(), [x](__m512 sum) { return _mm512_dpbf16_ps(sum, x, x); });
    }
#endif
#if defined(__AVX512VNNI__)
    if (a.kind == ENGINE_I8) {
        const __m512i x = _mm512_set1_epi8(1);
        total = chains<__m512i>(a.rounds, _mm512_setzero_si512(), [x](__m512i sum) { return _mm512_dpbusd_epi32(sum, x, x); });
    }
#endif
    if (total == 0.125f) *a.sink = total;
}
}
