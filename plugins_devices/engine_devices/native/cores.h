// Which cores there are, and threads that stay on one.
#pragma once
#include <pthread.h>
#include <sched.h>

#include <thread>
#include <vector>

namespace cores {
namespace {

#ifdef __linux__
bool pin(pthread_t thread, int core) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (core < 0 || core >= CPU_SETSIZE) return false;
    CPU_SET(core, &mask);
    return pthread_setaffinity_np(thread, sizeof mask, &mask) == 0;
}
#endif

int usable_cores() {
#ifdef __linux__
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) return CPU_COUNT(&mask);
#endif
    return int(std::thread::hardware_concurrency());
}

// Keeps the caller on its core while a step runs; other code of this thread, and threads it starts, stay free.
struct CallerPin {
#ifdef __linux__
    cpu_set_t before;
    bool pinned = false;
    CallerPin(const std::vector<int>& cores, bool worth) {
        if (cores.empty() || !worth) return;
        if (pthread_getaffinity_np(pthread_self(), sizeof before, &before) != 0) return;
        pinned = pin(pthread_self(), cores[0]);
    }
    ~CallerPin() {
        if (pinned) pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    }
#else
    CallerPin(const std::vector<int>&, bool) {}
#endif
};

}  // namespace
}  // namespace cores
