// Tokens that masks forbid, in logits.
#pragma once
#include <stdint.h>

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Sets logits to minus infinity, in place, where a mask's bit is 0. `rows` [count]: which rows of logits [*, size] with stride `row`,
// each at most once. bits [count, words]: bit i of word w belongs to column 32·w + i; `words` · 32 >= size.
typedef struct {
    void* logits;
    const int64_t* rows;
    const uint32_t* bits;
    int64_t row, size, words;
    int32_t count, type;
} engine_forbid_arguments;

void engine_forbid(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}

// The mask number `index` alone, on this thread.
void engine_forbid_row(const engine_forbid_arguments* arguments, int64_t index);
#endif
