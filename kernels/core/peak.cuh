// The (max, rest) pair of a log-sum-exp: `Lse`, but for one copy of the largest key.
//
// rest is the sum of 2^((key - max) * k) over all keys but one of the largest, so that it keeps the
// digits that a sum barely above 1 would lose: ln sum = log1p(rest), 1 - p_max = rest/(1 + rest).
//
// max ignores NaN; rest is NaN then. Of no keys the sum is 0 and rest -1.
#pragma once
#include "core/lse.cuh"

struct Peak {
  static constexpr int WORDS = 2;
  float max, rest;

  static WL_FN Peak empty() { return {-wl_inf(), -1.f}; }

  // n is a power of two. Leaves the exponentials, relative to the new maximum; `e` may be `key`.
  template <int n>
  WL_FN void push(const float (&key)[n], float k, float (&e)[n]) {
    const float largest = max_of(key), top = wl_max(max, largest), ref = reference(top);
    float part = 0.f, copies = 0.f;
    WL_UNROLL for (int i = 0; i < n; i++) {
      const bool copy = key[i] == top;
      e[i] = wl_ex2((key[i] - ref) * k);
      part += copy ? 0.f : e[i];
      copies += copy ? 1.f : 0.f;
    }
    if (largest > max) {
      rest = (1.f + rest) * wl_ex2((max - ref) * k) + (part + (copies - 1.f));
    } else {
      rest += part + copies;
    }
    max = top;
  }

  // Of equal maxima either way round to the same bits: lanes that merge with each other agree on a row, and
  // differences of classes near each other have no part of what lanes differ by.
  WL_FN void merge(const Peak& other, float k) {
    const bool more = other.max > max;
    const float top = more ? other.max : max, lower = more ? max : other.max;
    const float own = more ? other.rest : rest, others = more ? rest : other.rest;
    const float share = wl_min(wl_ex2((lower - reference(top)) * k), 1.f);  // of +inf it is 1
    rest = wl_fma(others, share, own) + share;
    max = top;
  }
};
