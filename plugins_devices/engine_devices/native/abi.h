// The C interface between Python and the native CPU kernels: plain pointers and structs, no torch.
//
// A kernel is `void kernel(const void* arguments, int thread, int threads)`: it is called for every `thread` of `threads` with the
// same arguments, and does its share (see pool.h). An operation is a kernel with its arguments. A step is a list of operations:
// the pool runs them in order with a barrier after each, in one call. Python fills the argument structs through ctypes (or writes
// them with struct.pack into buffers), keeps them and the tensors behind their pointers alive, and calls `engine_run`.
#pragma once
#include <stdint.h>

#include "advance.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*engine_kernel)(const void* arguments, int thread, int threads);

typedef struct {
    engine_kernel kernel;
    const void* arguments;
} engine_operation;

// Element types, as argument structs name them.
enum engine_type {
    ENGINE_F32 = 0,
    ENGINE_BF16 = 1,
    ENGINE_F16 = 2,
    ENGINE_F8_E4M3 = 3,
    ENGINE_F8_E5M2 = 4,
    ENGINE_I8 = 5,
    ENGINE_I4 = 6,
    ENGINE_C4 = 7,  // places in a table of 16 or of 256 floats
    ENGINE_C8 = 8,
    ENGINE_I2 = 9,
    ENGINE_I3 = 10,
    ENGINE_I5 = 11,
    ENGINE_I6 = 12,
};

// Starts the pool: `threads` threads including the caller's, pinned to `cores` (may be null). Returns the number running.
int engine_start(int threads, const int* cores);

// Runs operations in order on the pool. Call from one thread at a time.
void engine_run(const engine_operation* operations, int count);

// The same, without waiting: the other threads do them while the caller goes on. They are over before the next list begins, and when
// engine_finish returns; until then the operations and all that they point to stay. With one thread they are over at once.
void engine_begin(const engine_operation* operations, int count);
void engine_finish(void);

// A list that may come to nothing: the other threads begin it while the caller goes on. engine_lead returns 1, or 0 where nobody else could
// do it (nothing has begun then). engine_follow joins in and returns when all is done: 1, or 0 where something else was run or begun since,
// which ended it after the operation that ran. engine_drop ends it so. Until one of them all that it points to stays as it is.
int engine_lead(const engine_operation* operations, int count);
int engine_follow(void);
void engine_drop(void);

// engine_follow, and where the list was done and engine_advance (advance.h) says that it goes on, engine_lead of this list: 2 then, 1 where it
// was done and nothing has begun, 0 as engine_follow.
int engine_follow_on(const engine_operation* operations, int count, const engine_advance_arguments* advance);

// Seconds spent in each kernel since the last call, for `engine bench roofline`; `count` entries of `seconds`, in operation order of the last run.
void engine_profile(int enabled);
int engine_profile_read(double* seconds, int count);

// The instruction set that the loaded library uses: "amx", "avx512_bf16", "avx512", "avx2" or "portable".
const char* engine_instruction_set(void);

// Asks the system for the registers that this library uses, for all of the process; before its first kernel. 0, or the error's number.
int engine_permit(void);

#ifdef __cplusplus
}
#endif
