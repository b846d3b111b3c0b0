// What kernels may ask of the thread pool while they run.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A kernel is called once for every `thread` from 0 to `threads` - 1, but not by as many threads: one that is quick may call several
// times, and others then not at all. So no call may wait for another.

// Takes `amount` units of the running operation's work: returns the first unit taken. Units count from 0 in every operation;
// a call goes on until the first unit is past its end. Counter 0..3; operations start with all of them at 0. What calls wrote before
// they took from a counter is seen by those who take later.
int64_t engine_claim(int counter, int64_t amount);

#ifdef __cplusplus
}
#endif
