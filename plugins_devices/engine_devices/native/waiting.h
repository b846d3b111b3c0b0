// How threads of the pool wait for each other: for some microseconds awake, then asleep in the kernel.
#pragma once
#include <stdint.h>
#include <time.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace waiting {
namespace {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

inline int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
}

// A number that threads wait to see changed.
struct alignas(64) Signal {
    std::atomic<uint32_t> value{0};
    alignas(64) std::atomic<int> sleepers{0};
#ifndef __linux__
    std::mutex mutex;
    std::condition_variable condition;
#endif

    void advance() {
        value.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers.load(std::memory_order_seq_cst) == 0) return;
#ifdef __linux__
        syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
#else
        { std::lock_guard<std::mutex> lock(mutex); }
        condition.notify_all();
#endif
    }

    void wait(uint32_t seen, int64_t spin) {
        for (int round = 0; round < 64; round++) {
            if (value.load(std::memory_order_acquire) != seen) return;
            relax();
        }
        for (int64_t end = spin > 0 ? now() + spin : 0; spin > 0 && now() < end;)
            for (int round = 0; round < 32; round++) {
                if (value.load(std::memory_order_acquire) != seen) return;
                relax();
            }
        sleepers.fetch_add(1, std::memory_order_seq_cst);
#ifdef __linux__
        while (value.load(std::memory_order_seq_cst) == seen)
            syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
        std::unique_lock<std::mutex> lock(mutex);
        condition.wait(lock, [&] { return value.load(std::memory_order_seq_cst) != seen; });
#endif
        sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
};

}  // namespace
}  // namespace waiting
