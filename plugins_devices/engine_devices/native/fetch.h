// How lines are fetched into caches, where processors differ.
#pragma once

// Whether a line that is fetched for one use alone leaves the caches to others and is there when it is used. Where AMD's processors gain
// by that, Intel's lose such lines before their use: one core reads weights at half the speed then.
inline bool fetches_for_one_use() {
#if defined(__x86_64__)
    return __builtin_cpu_is("amd");
#else
    return true;
#endif
}

// Fetching a line that will be written: as its owner, not as one of its readers.
//
// GCC makes a fetch for reading of `__builtin_prefetch(line, 1)` unless told of 3DNow's instructions; every 64-bit processor takes this one,
// if only as one that does nothing. A line that another core wrote last would else be asked for twice, and stores wait for it.
inline void fetch_to_write(const void* line) {
#if defined(__x86_64__)
    asm volatile("prefetchw (%0)" : : "r"(line));
#else
    __builtin_prefetch(line, 1, 3);
#endif
}
