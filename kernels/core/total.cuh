// What the losses of rows add up to, made by who is last in the launch that writes them: chunks of rows, each by
// the block that writes the last of it, then their total by the block that is last of all. In f64, in an
// order that depends on nothing but the number of rows: the same bits every time, and no float atomics.
// Tickets count what is done; the census of the same call has zeroed them.
#pragma once
#include "core/args.cuh"

// Rows, or classes, of a chunk (CHUNK in src/cuda/schedule/batch.rs), and how many of them a thread takes
// of one of 256.
#define WL_CHUNK 4096
#define WL_CHUNK_TURNS 16
#define WL_CHUNK_WARPS 8

WL_FN wl_i64 chunks_of(wl_i64 n) { return (n + WL_CHUNK - 1) / WL_CHUNK; }

// The sum of n terms, as 256 threads add them up, whatever threads there are: each by turns, then lanes, then
// warps in order. Thread 0 gets it once all have met; `slots`: one a warp of those 256.
template <class Term>
WL_FN void lay_sum(wl_u32 n, wl_shared<double> slots, Term term) {
  WL_UNROLL_N(1) for (wl_u32 warp = wl_warp(); warp < WL_CHUNK_WARPS; warp += wl_warps()) {
    double sum = 0.;
    // So many on their way at once: more would take registers from the loops over rows.
    constexpr wl_u32 AT_ONCE = 4, TURN = WL_CHUNK / WL_CHUNK_TURNS;
    WL_UNROLL_N(1) for (wl_u32 i = 32 * warp + wl_lane(); i < n; i += AT_ONCE * TURN) {
      double terms[AT_ONCE];
      WL_UNROLL for (wl_u32 j = 0; j < AT_ONCE; j++) terms[j] = i + j * TURN < n ? term(i + j * TURN) : 0.;
      WL_UNROLL for (wl_u32 j = 0; j < AT_ONCE; j++) sum += terms[j];
    }
    WL_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) sum += wl_shfl_xor(WL_FULL_MASK, sum, lanes);
    if (wl_lane() == 0) slots[warp] = sum;
  }
}
WL_FN double laid_sum(wl_shared<double> slots) {
  double sum = slots[0];
  for (wl_u32 warp = 1; warp < WL_CHUNK_WARPS; warp++) sum += slots[warp];
  return sum;
}

WL_FN double load_loss(const void* losses, bool wide, wl_i64 row) {
  return wide ? wl_ld_cg((const double*)losses + row) : (double)wl_ld_cg((const float*)losses + row);
}

// One thread: the loss, and the z-loss in it.
WL_FN void store_total(const SumArgs& a, double loss, double z_loss) {
  if (a.mean) {
    // No kept row makes NaN, and so does no weight, whatever the sum is.
    const double weight = wl_ld(&a.totals->weight);
    loss = weight == 0. ? (double)wl_nan() : loss / weight;
    z_loss = a.z_loss ? z_loss / wl_ld(&a.totals->kept) : 0.;
  }
  wl_st(a.loss_out, (float)(loss + z_loss));
  if (a.z_loss_out) wl_st(a.z_loss_out, (float)z_loss);
}

// The whole block: a chunk whose losses are all written, then, if that was the last, the total.
WL_FN void add_up(const SumArgs& a, wl_i64 chunk) {
  WL_SMEM(double, sums, 2 * WL_CHUNK_WARPS);
  const wl_shared<double> z_sums = sums + WL_CHUNK_WARPS;
  const wl_i64 first = chunk * WL_CHUNK, left = a.rows - first;
  const wl_u32 rows = left < WL_CHUNK ? (wl_u32)left : WL_CHUNK, chunks = (wl_u32)chunks_of(a.rows);
  wl_threadfence();
  lay_sum(rows, sums, [&](wl_u32 i) { return load_loss(a.loss, a.wide, first + i); });
  if (a.z_loss) lay_sum(rows, z_sums, [&](wl_u32 i) { return load_loss(a.z_loss, a.wide, first + i); });
  wl_syncthreads();  // the warps' sums are there
  bool last = false;
  if (wl_thread() == 0) {
    const double loss = laid_sum(sums), z_loss = a.z_loss ? laid_sum(z_sums) : 0.;
    if (chunks <= 1) return store_total(a, loss, z_loss);
    wl_st(a.chunks + 2 * chunk, loss);
    wl_st(a.chunks + 2 * chunk + 1, z_loss);
    last = wl_ticket(a.tickets + chunks, 1) + 1 == chunks;
  }
  if (chunks <= 1 || !wl_syncthreads_or(last)) return;
  wl_threadfence();
  lay_sum(chunks, sums, [&](wl_u32 i) { return wl_ld_cg(a.chunks + 2 * (wl_u64)i); });
  if (a.z_loss) lay_sum(chunks, z_sums, [&](wl_u32 i) { return wl_ld_cg(a.chunks + 2 * (wl_u64)i + 1); });
  wl_syncthreads();  // the warps' sums are there
  if (wl_thread() == 0) store_total(a, laid_sum(sums), a.z_loss ? laid_sum(z_sums) : 0.);
}

// The losses of rows that a block writes, if they are to be added up. Each of its rows, or some of one chunk
// together, are `written`; the whole block calls `close` after each.
struct Losses {
  const SumArgs& a;
  wl_u32 chunk;  // one more than the chunk that is complete by it; 0: none. The thread that has written knows

  WL_FN explicit Losses(const SumArgs& a) : a(a), chunk(0) {}
  // One thread, after all of them are written: n rows from `first` on.
  WL_FN void written(wl_i64 first, wl_u32 n) {
    if (!a.tickets) return;
    const wl_u32 own = (wl_u32)(first / WL_CHUNK);
    const wl_i64 left = a.rows - (wl_i64)own * WL_CHUNK;
    if (wl_ticket(a.tickets + own, n) + n == (wl_u32)(left < WL_CHUNK ? left : WL_CHUNK)) chunk = own + 1;
  }
  WL_FN void close() {
    if (!a.tickets) return;
    WL_SMEM(wl_u32, complete, 4);
    if (chunk) complete[0] = chunk - 1;
    if (wl_syncthreads_or(chunk != 0)) add_up(a, complete[0]);
  }
};
