// Which packs of a row a thread has, and how they come to a functor and what it makes of them goes back.
#pragma once
#include "schedule/functor.cuh"

// A thread's packs of packs [from, to) of a row: p, p + threads, ... while they are full, then perhaps
// one at an end of the row that is not. Each pack has one thread, the same one every time.
struct Turn {
  wl_u32 p, last;
  wl_u32 edge;  // WL_NO_PACK: none

  template <class T>
  WL_FN Turn(const Packs<T>& packs, wl_u32 from, wl_u32 to) {
    const wl_u32 thread = wl_thread(), threads = wl_threads();
    p = (from > packs.first ? from : packs.first) + thread;
    last = to < packs.last ? to : packs.last;
    // The first thread and the last: never the same one, so a thread has one edge at most.
    const bool head = packs.head && from == 0 && to > 0 && thread == 0;
    const bool tail = packs.tail && from < packs.count && to == packs.count && thread == threads - 1;
    edge = head ? 0u : tail ? packs.count - 1 : WL_NO_PACK;
  }
};

// Calls `full(Count<n>, p)` for n packs p, p + threads, ... that are full, as long as there are so
// many, and `one(p, edge)` for each of the others; `edge`: it is not full.
template <int n, class T, class Full, class One>
WL_FN void each_pack(const Packs<T>& packs, wl_u32 from, wl_u32 to, Full full, One one) {
  const wl_u32 threads = wl_threads();
  Turn turn(packs, from, to);
  if constexpr (n > 1) {
    for (; turn.p + (n - 1) * threads < turn.last; turn.p += n * threads) full(Count<n>{}, turn.p);
  }
  // Both by the same code.
  WL_UNROLL_N(1) for (bool edge = false; !edge; turn.p += threads) {
    if (turn.p >= turn.last) {
      if (turn.edge == WL_NO_PACK) break;
      turn.p = turn.edge, edge = true;
    }
    one(turn.p, edge);
  }
}

// Which packs of a row a block owns.
template <class T>
struct Slice {
  wl_u32 from, to;
  WL_FN Slice(const Packs<T>& packs, wl_u32 part, wl_u32 slice) {
    const wl_u64 begin = (wl_u64)part * slice, end = begin + slice;
    from = begin < packs.count ? (wl_u32)begin : packs.count;
    to = end < packs.count ? (wl_u32)end : packs.count;
  }
  WL_FN bool holds(wl_u32 p) const { return p >= from && p < to; }
};

template <class Op>
WL_FN const typename Op::In* x_row(const typename Op::Args& a, wl_i64 row) {
  return (const typename Op::In*)a.rows.x + row * a.rows.x_stride;
}
template <class Op>
WL_FN typename Op::Out* y_row(const typename Op::Args& a, wl_i64 row) {
  return (typename Op::Out*)a.rows.y + row * a.rows.y_stride;
}

// Calls `one(p, edge, v, b)` for a thread's packs, one after another, with what is read of them: the
// next pack is on its way meanwhile.
template <class Op, class T, class One>
WL_FN void stream_packs(const Packs<T>& packs, const Slice<T>& slice, const OpBeside<Op>& beside, One one) {
  const wl_u32 threads = wl_threads();
  Turn turn(packs, slice.from, slice.to);
  wl_u32x4 next[1] = {}, b[BESIDE_PACKS<Op, 1>] = {};
  const auto load = [&](wl_u32 p) {
    if (p >= turn.last) return;
    next[0] = wl_ld128_stream(packs.at(p));
    beside.load(packs, p, b);
  };
  load(turn.p);
  WL_UNROLL_N(1) for (bool edge = false; !edge; turn.p += threads) {
    if (turn.p >= turn.last) {
      if (turn.edge == WL_NO_PACK) break;
      turn.p = turn.edge, edge = true;
      next[0] = packs.edge(turn.p);
      beside.load(packs, turn.p, b);
    }
    wl_u32x4 v[1] = {next[0]}, by[BESIDE_PACKS<Op, 1>] = {};
    WL_UNROLL for (int i = 0; i < OpBeside<Op>::PACKS; i++) by[i] = b[i];
    if (!edge) load(turn.p + threads);
    one(turn.p, edge, v, by);
  }
}

// Reads a block's packs from global memory, each once.
template <class Op, class T>
WL_FN typename Op::State stream_sum(const Op& op, const typename Op::Row& row, const Packs<T>& packs,
                                    const Slice<T>& slice, const OpBeside<Op>& beside) {
  constexpr int B = OpBeside<Op>::PACKS;
  typename Op::State state = Op::State::empty();
  if constexpr (ONE_BY_ONE<Op>) {
    stream_packs<Op>(packs, slice, beside, [&](wl_u32 p, bool, const auto& v, const auto& b) {
      push_packs(op, state, row, v, b, packs, p, 0);
    });
    return state;
  } else {
    constexpr int N = Together<Op>::packs;
    const wl_u32 threads = wl_threads();
    Turn turn(packs, slice.from, slice.to);
    const auto load = [&](wl_u32 p, wl_u32x4& v, wl_u32x4* b) {
      v = wl_ld128_stream(packs.at(p));
      beside.load(packs, p, b);
    };
    for (; turn.p + (N - 1) * threads < turn.last; turn.p += N * threads) {
      wl_u32x4 v[N], b[BESIDE_PACKS<Op, N>];
      WL_UNROLL for (int i = 0; i < N; i++) load(turn.p + i * threads, v[i], b + i * B);
      push_packs(op, state, row, v, b, packs, turn.p, threads);
    }
    // What is left is on its way together too, and is pushed by one copy of the code.
    constexpr int M = N - 1;
    wl_u32x4 v[M] = {}, b[BESIDE_PACKS<Op, M>] = {};
    WL_UNROLL for (int i = 0; i < M; i++) {
      if (turn.p + i * threads < turn.last) load(turn.p + i * threads, v[i], b + i * B);
    }
    WL_UNROLL_N(1) for (bool edge = false; !edge; turn.p += threads) {
      if (turn.p >= turn.last) {
        if (turn.edge == WL_NO_PACK) break;
        turn.p = turn.edge, edge = true;
        v[0] = packs.edge(turn.p);
        beside.load(packs, turn.p, b);
      }
      const wl_u32x4 one[1] = {v[0]};
      wl_u32x4 by[BESIDE_PACKS<Op, 1>] = {};
      WL_UNROLL for (int i = 0; i < B; i++) by[i] = b[i];
      push_packs(op, state, row, one, by, packs, turn.p, 0);
      WL_UNROLL for (int i = 1; i < M; i++) {
        v[i - 1] = v[i];
        WL_UNROLL for (int k = 0; k < B; k++) b[(i - 1) * B + k] = b[i * B + k];
      }
    }
    return state;
  }
}

// Calls `write(p, edge, v, b)` for a thread's packs, with what is read of them.
template <class Op, class T, class Write>
WL_FN void write_packs(const Packs<T>& packs, const Slice<T>& slice, const OpBeside<Op>& beside, Write write) {
  constexpr int B = OpBeside<Op>::PACKS;
  if constexpr (ONE_BY_ONE<Op>) {
    stream_packs<Op>(packs, slice, beside,
                     [&](wl_u32 p, bool edge, const auto& v, const auto& b) { write(p, edge, v[0], b); });
  } else {
    each_pack<WRITTEN<Op>>(
        packs, slice.from, slice.to,
        [&](auto count, wl_u32 p) {
          constexpr int n = decltype(count)::value;
          wl_u32x4 v[n], b[BESIDE_PACKS<Op, n>];
          WL_UNROLL for (int i = 0; i < n; i++) {
            v[i] = wl_ld128_stream(packs.at(p + i * wl_threads()));
            beside.load(packs, p + i * wl_threads(), b + i * B);
          }
          WL_UNROLL for (int i = 0; i < n; i++) write(p + i * wl_threads(), false, v[i], b + i * B);
        },
        [&](wl_u32 p, bool edge) {
          wl_u32x4 b[BESIDE_PACKS<Op, 1>];
          beside.load(packs, p, b);
          write(p, edge, edge ? packs.edge(p) : wl_ld128_stream(packs.at(p)), b);
        });
  }
}

// The thread that wrote the target's pack; the whole block calls it.
template <class Op, class T>
WL_FN void write_target(const Op& op, const typename Op::Row& row, const Packs<T>& packs,
                        const Slice<T>& slice, const Sink<T, typename Op::Out>& sink) {
  if constexpr (Op::TARGET) {
    const wl_u32 p = packs.pack_of(row.target);
    if (!slice.holds(p)) return;
    const wl_u32 first = slice.from > packs.first ? slice.from : packs.first;
    const wl_u32 owner = packs.full(p) ? (p - first) % wl_threads() : (p == 0 && packs.head) ? 0 : wl_threads() - 1;
    if (wl_thread() == owner) Dtype<typename Op::Out>::store(sink.row + row.target, op.target_gradient(row));
  }
}

template <class Op, class T>
WL_FN void fill(const Op& op, const typename Op::Row& row, const Packs<T>& packs, const Slice<T>& slice,
                const Sink<T, typename Op::Out>& sink) {
  constexpr int LANES = Packs<T>::LANES;
  const float zero[LANES] = {};
  each_pack<1>(
      packs, slice.from, slice.to, [](auto, wl_u32) {},
      [&](wl_u32 p, bool edge) {
        sink.put(packs.column(p), packs.len, edge, zero);
        if constexpr (SecondOf<Op>::SOME) op.fill_beside(row, PackColumns<T, 1>(packs, p, 0));
      });
}
