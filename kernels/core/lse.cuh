// The (max, sum) pair of a log-sum-exp: push, merge, value.
//
// A key is what the exponent is made of: the sum is that of 2^((key - max) * k), k = log2(e) times
// whatever scale the keys still lack. The difference comes first: a common offset of the keys
// costs no digits. A vector is pushed with one exponential an element and one for the rescaling:
// its maximum first. arXiv:1805.02867 has the pair.
//
// max ignores NaN; the sum is NaN then. A key of +inf makes the sum +inf, or NaN beside a NaN.
#pragma once
#include "core/intrinsics.cuh"

#define WL_LOG2E 1.4426950408889634f
#define WL_LN2 0.6931471805599453f
#define WL_FLT_MAX 3.402823466e38f

// What a sum is relative to: its maximum, or something finite in its place.
WL_FN float reference(float max) { return wl_max(wl_min(max, WL_FLT_MAX), -WL_FLT_MAX); }

// The largest of a vector, by a tree: a chain would wait for each comparison.
template <int n>
WL_FN float max_of(const float (&v)[n]) {
  float t[n];
  WL_UNROLL for (int i = 0; i < n; i++) t[i] = v[i];
  WL_UNROLL for (int step = n / 2; step > 0; step /= 2) {
    WL_UNROLL for (int i = 0; i < n / 2; i++) {
      if (i < step) t[i] = wl_max(t[i], t[i + step]);
    }
  }
  return t[0];
}

struct Lse {
  static constexpr int WORDS = 2;
  float max, sum;

  static WL_FN Lse empty() { return {-wl_inf(), 0.f}; }
  // A key was NaN.
  WL_FN bool broken() const { return wl_isnan(sum); }

  // n is a power of two.
  template <int n>
  WL_FN void push(const float (&key)[n], float k) {
    const float top = wl_max(max, max_of(key));
    const float ref = reference(top);
    float part[4] = {0.f, 0.f, 0.f, 0.f};
    WL_UNROLL for (int i = 0; i < n; i++) part[i % 4] += wl_ex2((key[i] - ref) * k);
    sum = sum * wl_ex2((max - ref) * k) + ((part[0] + part[1]) + (part[2] + part[3]));
    max = top;
  }

  WL_FN void merge(const Lse& other, float k) {
    const float top = wl_max(max, other.max);
    const float ref = reference(top);
    sum = sum * wl_ex2((max - ref) * k) + other.sum * wl_ex2((other.max - ref) * k);
    max = top;
  }
};

// What distances of keys are multiplied by where they are added up: each may be as large as f32 goes, and
// the sum as many times as large as there are classes. Where a scale is still to come that makes more of
// them, small ones count, and what is too large is infinite.
WL_FN float distance_unit(float k) { return k > 2.f ? 1.f : 9.31322575e-10f; }

// ref - key, times that, and rounded once; within f32 though the difference may not be.
WL_FN float distance(float ref, float key, float unit) { return wl_fma(key, -unit, ref * unit); }

// The sums of a softmax with what label smoothing adds: the weighted distance from the maximum, and the weight.
template <class Pair>
struct SmoothedOver : Pair {
  static constexpr int WORDS = Pair::WORDS + 2;
  using Pair::max;
  float deviation;  // sum of w * distance of reference(max) from key
  float weight;     // sum of w

  static WL_FN SmoothedOver empty() { return {Pair::empty(), 0.f, 0.f}; }

  template <int n>
  WL_FN void push(const float (&key)[n], float k) {
    const float before = reference(max);
    Pair::push(key, k);
    shift(before, distance_unit(k));
  }

  // After push: the same keys, each with weight `unit`.
  template <int n>
  WL_FN void weigh(const float (&key)[n], float unit, float k) {
    const float ref = reference(max), of_distance = distance_unit(k);
    float part = 0.f;
    WL_UNROLL for (int i = 0; i < n; i++) part = wl_fma(distance(ref, key[i], of_distance), unit, part);
    deviation += part;
    weight += (float)n * unit;
  }

  // After push: the weights of the same keys. A weight of 0 makes 0 of a key of -inf.
  template <int n>
  WL_FN void weigh(const float (&key)[n], const float (&w)[n], float k) {
    const float ref = reference(max), of_distance = distance_unit(k);
    WL_UNROLL for (int i = 0; i < n; i++) {
      deviation += w[i] == 0.f ? 0.f : w[i] * distance(ref, key[i], of_distance);
      weight += w[i];
    }
  }

  WL_FN void merge(const SmoothedOver& other, float k) {
    SmoothedOver b = other;
    const float before = reference(max), b_before = reference(b.max);
    Pair::merge(other, k);
    b.max = max;
    shift(before, distance_unit(k)), b.shift(b_before, distance_unit(k));
    deviation += b.deviation, weight += b.weight;
  }

 private:
  // Nothing has weight before the first key that is not masked, unless its distance is infinite.
  WL_FN void shift(float before, float unit) {
    if (weight != 0.f) deviation += weight * distance(reference(max), before, unit);
  }
};
typedef SmoothedOver<Lse> Smoothed;

// What stands for any distance whose exponential is 0, in powers of two: 0 times infinity is NaN.
#define WL_FARTHEST 200.f

// A sum of exponentials less 1 has lost digits below this: they are added up once more, without the 1.
#define WL_NEARLY_CERTAIN 0.0625f

// The pair with its moment: how far the keys lie below the maximum, in powers of two, weighted by
// their exponentials. Its share of the sum is the mean distance, without any difference of large
// numbers. The sum is without one copy of the largest key, as in peak.cuh; of no keys it is -1.
struct Moments {
  static constexpr int WORDS = 3;
  float max, rest;
  float moment;  // sum of 2^-d * d, d = (reference(max) - key) * k; a key of -inf adds 0

  static WL_FN Moments empty() { return {-wl_inf(), -1.f, 0.f}; }
  WL_FN bool broken() const { return wl_isnan(rest); }

  template <int n>
  WL_FN void push(const float (&key)[n], float k) {
    const float largest = max_of(key);
    const float ref = reference(wl_max(max, largest));
    float part[4] = {0.f, 0.f, 0.f, 0.f}, moments[4] = {0.f, 0.f, 0.f, 0.f};
    WL_UNROLL for (int i = 0; i < n; i++) {
      const float d = (ref - key[i]) * k;
      const float exponential = wl_ex2(-d);
      part[i % 4] += exponential;
      moments[i % 4] = wl_fma(exponential, wl_min(d, WL_FARTHEST), moments[i % 4]);
    }
    float sum = (part[0] + part[1]) + (part[2] + part[3]);
    if (largest > max) {
      sum -= 1.f;
      // There is one copy of the largest then.
      if (sum < WL_NEARLY_CERTAIN) {
        sum = 0.f;
        WL_UNROLL for (int i = 0; i < n; i++) sum += key[i] == largest ? 0.f : wl_ex2((key[i] - ref) * k);
      }
      rest = lower(ref, k);
      max = largest;
    }
    rest += sum;
    moment += (moments[0] + moments[1]) + (moments[2] + moments[3]);
  }

  WL_FN void merge(const Moments& other, float k) {
    Moments low = other;
    if (other.max > max) low = *this, *this = other;
    rest += low.lower(reference(max), k);
    moment += low.moment;
  }

  // Brings the moment to `ref`, which is no less than the maximum; returns the sum of all keys there.
  WL_FN float lower(float ref, float k) {
    const float d = (ref - max) * k;
    const float scale = wl_ex2(-d), sum = (1.f + rest) * scale;
    moment = wl_fma(sum, wl_min(d, WL_FARTHEST), moment * scale);
    return sum;
  }
};
