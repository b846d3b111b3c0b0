// What threads of the pool fetch while they wait: the weights that they will read first in the next product.
#pragma once
#include <stdint.h>

#include <atomic>

#include "linear.h"

namespace engine {

// Among how many operations behind the running one the next product is looked for.
const int FORESIGHT = 7;
// How much of it a thread fetches (of its second-level cache), and after how many bytes it looks whether there is work.
const int64_t FETCHED_BYTES = 256 << 10;
const int64_t FETCHED_TOGETHER = 1024;

// How far a thread has come.
struct Fetched {
    const linear_args* of = nullptr;
    int64_t bytes = 0;
};

// Waiting threads read it while it may change: they may fetch from a wrong address, which does no harm. So addresses are numbers.
class Coming {
    std::atomic<const linear_args*> of{nullptr};  // compared by them, not followed: its list may be gone
    std::atomic<uintptr_t> from{0}, other{0};
    std::atomic<int64_t> bytes{0}, step{0};
    int parts = 0;  // shares that it was found for

public:
    // The next product, while its list is sure to be there; null: none.
    void set(const linear_args* product, int shares) {
        if (product == of.load(std::memory_order_relaxed) && shares == parts) return;
        parts = shares;
        Beginning first{};
        int64_t apart = 0;
        if (!product || !beginning_of(*product, shares, first, apart)) first = {};
        from.store(uintptr_t(first.from), std::memory_order_relaxed);
        other.store(uintptr_t(first.other), std::memory_order_relaxed);
        bytes.store(first.bytes, std::memory_order_relaxed);
        step.store(apart, std::memory_order_relaxed);
        of.store(product, std::memory_order_relaxed);
    }

    // Until over() or enough is there.
    template <class OVER>
    void fetch(int self, Fetched& fetched, OVER over) const {
        const linear_args* product = of.load(std::memory_order_relaxed);
        if (product != fetched.of) fetched = {product, 0};
        const uintptr_t skip = uintptr_t(step.load(std::memory_order_relaxed)) * uintptr_t(self);
        const uintptr_t first = from.load(std::memory_order_relaxed) + skip, second = other.load(std::memory_order_relaxed) + skip;
        const int64_t each = bytes.load(std::memory_order_relaxed), all = second != skip ? 2 * each : each;
        const int64_t most = all < FETCHED_BYTES ? all : FETCHED_BYTES;
        while (fetched.bytes < most && !over()) {
            const uintptr_t at = fetched.bytes < each ? first + uintptr_t(fetched.bytes) : second + uintptr_t(fetched.bytes - each);
            for (int64_t i = 0; i < FETCHED_TOGETHER; i += 64) __builtin_prefetch(reinterpret_cast<const void*>(at + uintptr_t(i)), 0, 3);
            fetched.bytes += FETCHED_TOGETHER;
        }
    }
};

}  // namespace engine
