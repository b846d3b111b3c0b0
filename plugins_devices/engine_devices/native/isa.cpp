// Which instruction set this library was compiled for.
#include "abi.h"

extern "C" const char* engine_instruction_set(void) {
#if defined(__AVX512BF16__)
    return "avx512_bf16";
#elif defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__)
    return "avx2";
#else
    return "portable";
#endif
}
