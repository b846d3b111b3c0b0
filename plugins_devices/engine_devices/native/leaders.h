// The largest output of each row of a product, found while its panels are still in the cache.
#pragma once
#include "best.h"
#include "linear.h"
#include "pool.h"
#include "vector.h"

namespace engine {

// What one call has found, [rows]; its panels come in the order of the outputs. Without `found` it does nothing.
struct Leaders {
    Best* found;

    Leaders(const linear_args& a, int thread) : found(static_cast<Best*>(a.best_found)) {
        if (!found) return;
        found += int64_t(thread) * a.rows;
        for (int row = 0; row < a.rows; row++) found[row] = nothing();
    }

    // Less than or like every number, at no place.
    static Best nothing() { return {-__builtin_inff(), -1}; }

    // `count` outputs of a row from `column` on, as they have been written.
    template <class T>
    void look(int64_t row, const typename T::Element* outputs, int64_t column, int count) const {
        Best& best = found[row];
        if (count == PANEL && !any_above<T>(outputs, best.value)) return;
        for (int i = 0; i < count; i++) best = better(best, {T::get(outputs + i), column + i});
    }

    // Whether any is larger than `value`, or is no number.
    template <class T>
    static bool any_above(const typename T::Element* outputs, float value) {
        vi above{};
        for (int i = 0; i < PANEL; i += LANES) above |= ~vi(T::load(outputs + i) <= splat(value));
        return any(above);
    }

    // After a call's last panel: whoever comes last chooses among what all found.
    void end(const linear_args& a, int threads) const {
        if (!found || engine_claim(1, 1) < threads - 1) return;
        for (int row = 0; row < a.rows; row++) {
            Best best = nothing();
            for (int thread = 0; thread < threads; thread++) {
                const Best& other = static_cast<const Best*>(a.best_found)[int64_t(thread) * a.rows + row];
                best = other.place < best.place ? better(other, best) : better(best, other);
            }
            a.best_value[row] = best.value;
            a.best_place[row] = best.place < 0 ? 0 : best.place;
        }
    }
};

}  // namespace engine
