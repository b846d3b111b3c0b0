// What kernels may ask of the thread pool while they run.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Takes `amount` units of the running operation's work: returns the first unit taken. Units count from 0 in every operation;
// a thread goes on until the first unit is past its end. Counter 0..3; operations start with all of them at 0.
int64_t engine_claim(int counter, int64_t amount);

// Waits inside a kernel until every thread of the pool came here. All threads must call it equally often. Counters are 0 afterwards.
void engine_barrier(void);

// Threads that kernels run on now (1 before engine_start).
int engine_threads(void);

#ifdef __cplusplus
}
#endif
