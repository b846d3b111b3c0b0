// Grammars of another library, stepped by the pool's threads.
#pragma once
#include <stdint.h>

#include "abi.h"
#include "forbid.h"
#include "sample.h"

#ifdef __cplusplus
extern "C" {
#endif

// A function of another library; 0 means that it worked.
typedef int (*engine_foreign_function)(void* object, void* arguments, int32_t count, void* result);

typedef struct {
    engine_foreign_function function;
    void* object;
    void* arguments;
    int64_t count;
    void* result;
} engine_foreign_call;

// Every row does its `per_row` of calls [rows, per_row] in order, on one thread, until one fails: what that returned is the row's
// status, else 0. The calls leave the row's mask in bits [rows, words], of which only what `kept` [rows] points to stays (null: all).
// Where it has the bit `end`, the row's ends [rows, extra] are set, too; negative ones are none. A row that took longer than
// `limit` nanoseconds sets `late`.
typedef struct {
    const engine_foreign_call* calls;
    uint32_t* bits;
    const uint32_t* const* kept;
    const int64_t* ends;
    int32_t* status;
    int32_t* late;
    int64_t words, end, limit;
    int32_t rows, per_row, extra;
} engine_step_grammars_arguments;

void engine_step_grammars(const void* arguments, int thread, int threads);

// A row at a time, all that comes after the model: where `masks` name it, its grammar's step, if there are `steps` (their row i
// writes the mask number i), and its mask; then its largest logit, into `best` of the draw; then the draw.
typedef struct {
    const engine_step_grammars_arguments* steps;
    const engine_forbid_arguments* masks;
    const engine_sample_arguments* draw;
} engine_sample_masked_arguments;

void engine_sample_masked(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}
#endif
