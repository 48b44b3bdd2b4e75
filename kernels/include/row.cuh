// The schedules: how one row is spread over threads. A loss is a functor that says what to do
// with packs of it:
//
//   In, Out           element types of what is read and written
//   State             the mergeable pair
//   Row               what a thread knows of the row, and later what the gradient is made of
//   begin(i, x_t)     reads the row's target and upstream gradient (x_t: the target's x where
//                     the row itself may be overwritten by now, or null)
//   row.kept          false: the row is never read, its outputs are 0
//   push(s, row, v, packs, p, step)   packs p, p + step, ... into the state; v[] is theirs
//   finish(s, row)    the state of the whole row is known
//   write(row)        one thread: the row's numbers
//   gradient(row, pack, v, p, out)    one pack's outputs
//   target_gradient(row)              the target's output, written last (Op::TARGET)
//
// and, where it says so:
//
//   TOGETHER          packs pushed together (4); 1: one after another, as more would only add code
//   Beside            element type of another tensor read column by column; then beside(i) is its
//                     row, and push and gradient take what lies beside their packs after v
//   Second            sums that need the whole row's state first: after finish, push_second(s, row,
//                     v, b, packs, p) for each pack again, then finish_second(s, row). Without a y
//                     no gradient is written; fill_beside(row, packs, p) writes what a row that is
//                     not kept has besides
//
// Every schedule reads a row in the same packs (dtype.cuh), merges by reduce.cuh, and writes each
// pack by the thread that read it: in place needs no more order than that all have read their
// part and the target before anyone writes, which the reduction's barrier gives.
#pragma once
#include "args.cuh"
#include "dtype.cuh"
#include "lse.cuh"
#include "reduce.cuh"

// Packs of a thread that are worked on together. A functor that takes them one by one has its code
// once in a loop.
template <class Op, class = int>
struct Together {
  static constexpr int packs = 4;
};
template <class Op>
struct Together<Op, decltype((int)Op::TOGETHER)> {
  static constexpr int packs = Op::TOGETHER;
};
template <class Op>
constexpr bool ONE_BY_ONE = Together<Op>::packs == 1;
template <class Op>
constexpr int WRITTEN = ONE_BY_ONE<Op> ? 1 : 2;
#define WL_NO_PACK 0xffffffffu

// The other tensor that a functor reads: void where there is none.
template <class Op, class = int>
struct BesideOf {
  typedef void Type;
  static WL_FN const void* row(const Op&, wl_i64) { return nullptr; }
};
template <class Op>
struct BesideOf<Op, decltype((void)sizeof(typename Op::Beside), 0)> {
  typedef typename Op::Beside Type;
  static WL_FN const Type* row(const Op& op, wl_i64 index) { return op.beside(index); }
};
template <class Op>
using OpBeside = Beside<typename Op::In, typename BesideOf<Op>::Type>;

// What the functors are called with, whether or not they read another tensor. b[] holds what lies
// beside v[], and an array has one element at least.
template <class Op, int packs>
constexpr int BESIDE_PACKS = packs * OpBeside<Op>::PACKS > 0 ? packs * OpBeside<Op>::PACKS : 1;
template <class Op, int n, int m>
WL_FN void push_packs(const Op& op, typename Op::State& state, const typename Op::Row& row, const wl_u32x4 (&v)[n],
                      const wl_u32x4 (&b)[m], const Packs<typename Op::In>& packs, wl_u32 p, wl_u32 step) {
  if constexpr (OpBeside<Op>::PACKS > 0) {
    op.push(state, row, v, b, packs, p, step);
  } else {
    op.push(state, row, v, packs, p, step);
  }
}
template <class Op, int lanes>
WL_FN void gradient_of(const Op& op, const typename Op::Row& row, const Packs<typename Op::In>& packs, wl_u32x4 v,
                       const wl_u32x4* b, wl_u32 p, float (&out)[lanes]) {
  if constexpr (OpBeside<Op>::PACKS > 0) {
    op.gradient(row, packs, v, b, p, out);
  } else {
    op.gradient(row, packs, v, p, out);
  }
}

// Whether a functor has sums that need the whole row's state first.
template <class Op, class = int>
struct SecondOf {
  static constexpr bool SOME = false;
  static constexpr int WORDS = 0;
};
template <class Op>
struct SecondOf<Op, decltype((void)sizeof(typename Op::Second), 0)> {
  static constexpr bool SOME = true;
  static constexpr int WORDS = Op::Second::WORDS;
};
// Words a warp's place in a reduction needs.
template <class Op>
constexpr int WORDS_OF = Op::State::WORDS > SecondOf<Op>::WORDS ? Op::State::WORDS : SecondOf<Op>::WORDS;

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
WL_FN const typename Op::In* x_row(const RowArgs& a, wl_i64 row) {
  return (const typename Op::In*)a.x + row * a.x_stride;
}
template <class Op>
WL_FN typename Op::Out* y_row(const RowArgs& a, wl_i64 row) {
  return (typename Op::Out*)a.y + row * a.y_stride;
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
  }
  each_pack<Together<Op>::packs>(
      packs, slice.from, slice.to,
      [&](auto count, wl_u32 p) {
        constexpr int n = decltype(count)::value;
        wl_u32x4 v[n], b[BESIDE_PACKS<Op, n>];
        WL_UNROLL for (int i = 0; i < n; i++) {
          v[i] = wl_ld128_stream(packs.at(p + i * wl_threads()));
          beside.load(packs, p + i * wl_threads(), b + i * B);
        }
        push_packs(op, state, row, v, b, packs, p, wl_threads());
      },
      [&](wl_u32 p, bool edge) {
        const wl_u32x4 v[1] = {edge ? packs.edge(p) : wl_ld128_stream(packs.at(p))};
        wl_u32x4 b[BESIDE_PACKS<Op, 1>];
        beside.load(packs, p, b);
        push_packs(op, state, row, v, b, packs, p, 0);
      });
  return state;
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
        if constexpr (SecondOf<Op>::SOME) op.fill_beside(row, packs, p);
      });
}

// ---- lanes: a row in the registers of `width` lanes -------------------------------------------
template <class Op, int width, bool gradient>
WL_FN void lanes_row(const RowArgs& a) {
  typedef typename Op::In T;
  constexpr int N = 4;  // LANE_PACKS in plan.rs
  constexpr int LANES = Packs<T>::LANES;
  const Op op(a);
  const wl_u32 lane = wl_thread() % width;
  const wl_i64 index = (wl_i64)wl_block() * (wl_threads() / width) + wl_thread() / width;
  const bool exists = index < a.rows;
  const Packs<T> packs(x_row<Op>(a, exists ? index : 0), exists ? a.classes : 0);
  typename Op::Row row;
  row.kept = false;
  if (exists) row = op.begin(index, nullptr);

  constexpr int B = OpBeside<Op>::PACKS;
  const OpBeside<Op> beside(BesideOf<Op>::row(op, exists ? index : 0), packs);
  wl_u32x4 v[N], b[BESIDE_PACKS<Op, N>];
  WL_UNROLL for (int i = 0; i < N; i++) v[i] = {};
  WL_UNROLL for (int i = 0; i < BESIDE_PACKS<Op, N>; i++) b[i] = {};
  typename Op::State state = Op::State::empty();
  // A row's packs, each with its place in registers; by one copy of the code they take turns there.
  const auto each = [&](auto use) {
    if constexpr (ONE_BY_ONE<Op>) {
      WL_UNROLL_N(1) for (int i = 0; i < N; i++) {
        use(lane + i * width, v[0], b);
        const wl_u32x4 turn = v[0];
        WL_UNROLL for (int k = 1; k < N; k++) v[k - 1] = v[k];
        v[N - 1] = turn;
        WL_UNROLL for (int j = 0; j < B; j++) {
          const wl_u32x4 first = b[0];
          WL_UNROLL for (int k = 1; k < N * B; k++) b[k - 1] = b[k];
          b[N * B - 1] = first;
        }
      }
    } else {
      WL_UNROLL for (int i = 0; i < N; i++) use(lane + i * width, v[i], b + i * B);
    }
  };
  if (row.kept) {
    WL_UNROLL for (int i = 0; i < N; i++) {
      const wl_u32 p = lane + i * width;
      if (packs.full(p)) {
        v[i] = wl_ld128_stream(packs.at(p));
      } else if (p < packs.count) {
        v[i] = packs.edge(p);
      }
      if (p < packs.count) beside.load(packs, p, b + i * B);
    }
    each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
      if (p >= packs.count) return;
      const wl_u32x4 one[1] = {pack};
      wl_u32x4 by[BESIDE_PACKS<Op, 1>] = {};
      WL_UNROLL for (int k = 0; k < B; k++) by[k] = beside[k];
      push_packs(op, state, row, one, by, packs, p, 0);
    });
  }
  state = reduce_lanes<width>(state, op.k);
  if (row.kept) op.finish(state, row);
  if constexpr (SecondOf<Op>::SOME) {
    typename Op::Second second = Op::Second::empty();
    if (row.kept) {
      each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
        if (p < packs.count) op.push_second(second, row, pack, beside[0], packs, p);
      });
    }
    second = reduce_lanes<width>(second, op.k);
    if (row.kept) op.finish_second(second, row);
  }
  if (exists && lane == 0) op.write(row);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.y) return;
  }
  if constexpr (gradient) {
    wl_syncwarp();  // the target was read by all lanes; now it may be overwritten
    if (!exists) return;
    const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
    each([&](wl_u32 p, wl_u32x4 pack, const wl_u32x4* beside) {
      float out[LANES] = {};
      if (row.kept) gradient_of(op, row, packs, pack, beside, p, out);
      if constexpr (SecondOf<Op>::SOME) {
        if (!row.kept) op.fill_beside(row, packs, p);
      }
      if constexpr (Op::TARGET) {
        if (row.kept && p == packs.pack_of(row.target)) {
          const float g = op.target_gradient(row);
          WL_UNROLL for (int e = 0; e < LANES; e++) {
            out[e] = e == (int)packs.lane_of(row.target) ? g : out[e];
          }
        }
      }
      if (p < packs.count) sink.put(packs.column(p), packs.len, !packs.full(p), out);
    });
  }
}

// ---- stream: a block a row, read once, nothing written but numbers ----------------------------
template <class Op>
WL_FN void stream_row(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  const Op op(a);
  const wl_i64 index = wl_block();
  typename Op::Row row = op.begin(index, nullptr);
  if (row.kept) {
    const Packs<T> packs(x_row<Op>(a, index), a.classes);
    const Slice<T> slice(packs, 0, packs.count);
    const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
    const typename Op::State state = stream_sum(op, row, packs, slice, beside);
    op.finish(reduce_block(state, op.k, slots), row);
  }
  if (wl_thread() == 0) op.write(row);
}

// ---- on chip: a block, or a cluster of them, keeps the row in shared memory -------------------
template <class Op, bool cluster>
WL_FN void on_chip_row(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  WL_SMEM(float, mine, WORDS_OF<Op>);
  constexpr int LANES = Packs<T>::LANES, B = OpBeside<Op>::PACKS;
  // The slice's packs, then what lies beside them.
  WL_DYNAMIC_SMEM(wl_u32, kept, 0, 4 * (1 + B) * a.slice);
  const Op op(a);
  const wl_u32 rank = cluster ? wl_cluster_rank() : 0;
  const wl_i64 index = cluster ? wl_block() / wl_cluster_size() : wl_block();
  const Packs<T> packs(x_row<Op>(a, index), a.classes);
  const Slice<T> slice(packs, rank, a.slice);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  typename Op::Row row = op.begin(index, nullptr);
  if (!row.kept) {
    if (rank == 0 && wl_thread() == 0) op.write(row);
    if constexpr (SecondOf<Op>::SOME) {
      if (!a.y) return;
    }
    return fill(op, row, packs, slice, sink);
  }

  // A thread reads back what it brought itself, so it waits for nobody else here.
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  const auto place = [&](wl_u32 p) { return 4 * (p - slice.from); };
  const auto place_beside = [&](wl_u32 p) { return 4 * (a.slice + B * (p - slice.from)); };
  const Turn turn(packs, slice.from, slice.to);
  for (wl_u32 p = turn.p; p < turn.last; p += wl_threads()) {
    wl_cp_async16(kept, place(p), packs.at(p));
    if constexpr (B > 0) {
      if (beside.aligned) {
        WL_UNROLL for (int i = 0; i < B; i++) {
          wl_cp_async16(kept, place_beside(p) + 4 * i, beside.at(packs, p) + i * beside.STEP);
        }
      } else {
        wl_u32x4 b[B];
        beside.load(packs, p, b);
        WL_UNROLL for (int i = 0; i < B; i++) wl_sts128(kept, place_beside(p) + 4 * i, b[i]);
      }
    }
  }
  wl_cp_async_commit();
  wl_cp_async_wait<0>();
  const auto beside_of = [&](wl_u32 p, wl_u32x4* to) {
    WL_UNROLL for (int i = 0; i < B; i++) to[i] = wl_lds128(kept, place_beside(p) + 4 * i);
  };

  typename Op::State state = Op::State::empty();
  each_pack<Together<Op>::packs>(
      packs, slice.from, slice.to,
      [&](auto count, wl_u32 p) {
        constexpr int n = decltype(count)::value;
        wl_u32x4 v[n], b[BESIDE_PACKS<Op, n>];
        WL_UNROLL for (int i = 0; i < n; i++) {
          v[i] = wl_lds128(kept, place(p + i * wl_threads()));
          beside_of(p + i * wl_threads(), b + i * B);
        }
        push_packs(op, state, row, v, b, packs, p, wl_threads());
      },
      [&](wl_u32 p, bool edge) {
        if (edge) {
          wl_u32x4 b[BESIDE_PACKS<Op, 1>];
          beside.load(packs, p, b);
          wl_sts128(kept, place(p), packs.edge(p));
          WL_UNROLL for (int i = 0; i < B; i++) wl_sts128(kept, place_beside(p) + 4 * i, b[i]);
        }
        const wl_u32x4 v[1] = {wl_lds128(kept, place(p))};
        wl_u32x4 b[BESIDE_PACKS<Op, 1>];
        beside_of(p, b);
        push_packs(op, state, row, v, b, packs, p, 0);
      });
  state = reduce_block(state, op.k, slots);
  if constexpr (cluster) {
    state = reduce_cluster(state, op.k, mine);
  } else if (wl_warps() == 1) {
    wl_syncthreads();  // the target was read by all; now it may be overwritten
  }
  op.finish(state, row);
  if constexpr (SecondOf<Op>::SOME) {
    typename Op::Second second = Op::Second::empty();
    each_pack<1>(
        packs, slice.from, slice.to, [](auto, wl_u32) {},
        [&](wl_u32 p, bool) {
          wl_u32x4 b[BESIDE_PACKS<Op, 1>];
          beside_of(p, b);
          op.push_second(second, row, wl_lds128(kept, place(p)), b[0], packs, p);
        });
    wl_syncthreads();  // all have read the slots
    second = reduce_block(second, op.k, slots);
    if constexpr (cluster) {
      wl_cluster_wait();  // the peers have read this block's state
      second = reduce_cluster(second, op.k, mine);
    }
    op.finish_second(second, row);
  }
  if (rank == 0 && wl_thread() == 0) op.write(row);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.y) {
      if constexpr (cluster) wl_cluster_wait();
      return;
    }
  }

  const auto write = [&](wl_u32 p, bool edge) {
    float out[LANES];
    wl_u32x4 b[BESIDE_PACKS<Op, 1>];
    beside_of(p, b);
    gradient_of(op, row, packs, wl_lds128(kept, place(p)), b, p, out);
    sink.put(packs.column(p), packs.len, edge, out);
  };
  each_pack<WRITTEN<Op>>(
      packs, slice.from, slice.to,
      [&](auto count, wl_u32 p) {
        WL_UNROLL for (int i = 0; i < decltype(count)::value; i++) write(p + i * wl_threads(), false);
      },
      write);
  write_target(op, row, packs, slice, sink);
  if constexpr (cluster) wl_cluster_wait();  // no block ends while a peer reads its pair
}

// ---- split: blocks that meet in global memory, launch by launch -------------------------------
// First launch: each part's pair, and the target's x before anyone overwrites it.
template <class Op>
WL_FN void split_sum(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * Op::State::WORDS);
  const Op op(a);
  const wl_i64 index = wl_block() / a.parts;
  const wl_u32 part = wl_block() % a.parts;
  const typename Op::Row row = op.begin(index, nullptr);
  if (!row.kept) return;
  if constexpr (Op::TARGET) {
    if (part == 0 && wl_thread() == 0) wl_st(a.row_target + index, row.x_t);
  }
  if (a.coarse && !op.coarse(index)) return;
  const Packs<T> packs(x_row<Op>(a, index), a.classes);
  const Slice<T> slice(packs, part, a.slice);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  const typename Op::State state = reduce_block(stream_sum(op, row, packs, slice, beside), op.k, slots);
  if (wl_thread() == 0) {
    const Words<typename Op::State> words = wl_bit_cast<Words<typename Op::State>>(state);
    float* out = a.partials + (wl_i64)wl_block() * Op::State::WORDS;
    WL_UNROLL for (int i = 0; i < Op::State::WORDS; i++) wl_st(out + i, words.w[i]);
  }
}

// A row's parts, every `step`th from `first` on.
template <class Op>
WL_FN typename Op::State parts_of(const Op& op, const RowArgs& a, wl_i64 index, wl_u32 first, wl_u32 step) {
  typename Op::State state = Op::State::empty();
  for (wl_u32 part = first; part < a.parts; part += step) {
    const float* in = a.partials + (index * a.parts + part) * Op::State::WORDS;
    Words<typename Op::State> words;
    WL_UNROLL for (int i = 0; i < Op::State::WORDS; i++) words.w[i] = wl_ld(in + i);
    state.merge(wl_bit_cast<typename Op::State>(words), op.k);
  }
  return state;
}

// Where the parts' second sums lie: behind all parts' states.
template <class Op>
WL_FN float* second_parts(const RowArgs& a) {
  return a.partials + a.rows * a.parts * Op::State::WORDS;
}

// With sums that need the whole state, second launch: each part's.
template <class Op>
WL_FN void split_second(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  const Op op(a);
  const wl_i64 index = wl_block() / a.parts;
  const wl_u32 part = wl_block() % a.parts;
  typename Op::Row row = op.begin(index, nullptr);
  if (!row.kept) return;
  const Packs<T> packs(x_row<Op>(a, index), a.classes);
  const Slice<T> slice(packs, part, a.slice);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  op.finish(reduce_block(parts_of(op, a, index, wl_thread(), wl_threads()), op.k, slots), row);
  typename Op::Second second = Op::Second::empty();
  stream_packs<Op>(packs, slice, beside, [&](wl_u32 p, bool, const auto& v, const auto& b) {
    op.push_second(second, row, v[0], b[0], packs, p);
  });
  wl_syncthreads();  // all have read the slots
  second = reduce_block(second, op.k, slots);
  if (wl_thread() == 0) {
    const Words<typename Op::Second> words = wl_bit_cast<Words<typename Op::Second>>(second);
    float* out = second_parts<Op>(a) + (wl_i64)wl_block() * Op::Second::WORDS;
    WL_UNROLL for (int i = 0; i < Op::Second::WORDS; i++) wl_st(out + i, words.w[i]);
  }
}

// A row's second sums, every `step`th part from `first` on.
template <class Op>
WL_FN typename Op::Second second_of(const Op& op, const RowArgs& a, wl_i64 index, wl_u32 first, wl_u32 step) {
  typename Op::Second second = Op::Second::empty();
  for (wl_u32 part = first; part < a.parts; part += step) {
    const float* in = second_parts<Op>(a) + (index * a.parts + part) * Op::Second::WORDS;
    Words<typename Op::Second> words;
    WL_UNROLL for (int i = 0; i < Op::Second::WORDS; i++) words.w[i] = wl_ld(in + i);
    second.merge(wl_bit_cast<typename Op::Second>(words), op.k);
  }
  return second;
}

// Forward, second launch: a warp a row.
template <class Op>
WL_FN void split_finish(const RowArgs& a) {
  const Op op(a);
  const wl_i64 index = (wl_i64)wl_block() * wl_warps() + wl_warp();
  if (index >= a.rows) return;
  typename Op::Row row = op.begin(index, a.row_target);
  typename Op::State state = Op::State::empty();
  if (row.kept) state = parts_of(op, a, index, wl_lane(), 32);
  state = reduce_lanes<32>(state, op.k);
  if (row.kept) op.finish(state, row);
  if (wl_lane() == 0) op.write(row);
}

// With a gradient, second launch: each part again.
template <class Op>
WL_FN void split_gradient(const RowArgs& a) {
  typedef typename Op::In T;
  WL_SMEM(float, slots, 32 * WORDS_OF<Op>);
  const Op op(a);
  const wl_i64 index = wl_block() / a.parts;
  const wl_u32 part = wl_block() % a.parts;
  const Packs<T> packs(x_row<Op>(a, index), a.classes);
  const Slice<T> slice(packs, part, a.slice);
  const Sink<T, typename Op::Out> sink(y_row<Op>(a, index), packs);
  typename Op::Row row = op.begin(index, a.row_target);
  if (row.kept) {
    const typename Op::State state = parts_of(op, a, index, wl_thread(), wl_threads());
    op.finish(reduce_block(state, op.k, slots), row);
    if constexpr (SecondOf<Op>::SOME) {
      wl_syncthreads();  // all have read the slots
      const typename Op::Second second = second_of(op, a, index, wl_thread(), wl_threads());
      op.finish_second(reduce_block(second, op.k, slots), row);
    }
  }
  if (part == 0 && wl_thread() == 0) op.write(row);
  if constexpr (SecondOf<Op>::SOME) {
    if (!a.y) return;
  }
  if (!row.kept) return fill(op, row, packs, slice, sink);
  const OpBeside<Op> beside(BesideOf<Op>::row(op, index), packs);
  write_packs<Op>(packs, slice, beside, [&](wl_u32 p, bool edge, wl_u32x4 v, const wl_u32x4* b) {
    float out[Packs<T>::LANES];
    gradient_of(op, row, packs, v, b, p, out);
    sink.put(packs.column(p), packs.len, edge, out);
  });
  write_target(op, row, packs, slice, sink);
}
