// Which instruction set this library was compiled for, and the system's leave to use it.
#include "abi.h"

#include "amx.h"

#if defined(ENGINE_AMX)
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern "C" const char* engine_instruction_set(void) {
#if defined(ENGINE_AMX)
    return "amx";
#elif defined(__AVX512BF16__)
    return "avx512_bf16";
#elif defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__)
    return "avx2";
#else
    return "portable";
#endif
}

extern "C" int engine_permit(void) {
#if defined(ENGINE_AMX)
    // Registers of eight kilobytes are given to processes that ask: ARCH_REQ_XCOMP_PERM for XTILEDATA.
    const int request = 0x1023, tiles = 18;
    return syscall(SYS_arch_prctl, request, tiles) == 0 ? 0 : errno;
#else
    return 0;
#endif
}
