// Kernels that each break one rule of the machine, and controls that break none: the emulator's
// own tests (tests/device/emulator.rs). A line that is to be named in the report ends in `// FAULT name`.
#include "core/tensor_cores.cuh"

struct TestArgs {
  const float* x;
  float* y;
  wl_u32* counter;
  wl_u64 n;
};

// ---- Controls --------------------------------------------------------------------------------
struct Pair {
  float max, sum;
};
WL_FN Pair merge(Pair a, Pair b) {
  const float m = wl_max(a.max, b.max);
  return {m, a.sum * wl_ex2(a.max - m) + b.sum * wl_ex2(b.max - m)};
}

// y[block] = log2 of the sum of 2^x over a row of n: shuffles, then shared memory.
WL_KERNEL(test_block_sum, TestArgs, 1024, 1) {
  WL_SMEM(Pair, parts, 32);
  Pair p = {-1e30f, 0.f};
  for (wl_u64 i = wl_thread(); i < args.n; i += wl_threads()) {
    p = merge(p, {wl_ld(args.x + wl_block() * args.n + i), 1.f});
  }
  for (wl_u32 o = 16; o > 0; o /= 2) {
    p = merge(p, {wl_shfl_xor(WL_FULL_MASK, p.max, o), wl_shfl_xor(WL_FULL_MASK, p.sum, o)});
  }
  if (wl_lane() == 0) parts[wl_warp()] = p;
  wl_syncthreads();
  p = parts[0];
  for (wl_u32 w = 1; w < wl_warps(); w++) p = merge(p, parts[w]);
  if (wl_thread() == 0) wl_st(args.y + wl_block(), p.max + wl_lg2(p.sum));
}

// Blocks that may be sent to by their peers from here on: n bytes, which the mbarrier counts.
WL_FN void listen(wl_shared<wl_u64> counts, wl_u32 bytes) {
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, bytes), wl_mbarrier_show();
  wl_cluster_arrive();
  wl_cluster_wait();
}
WL_FN wl_u32 peer() { return (wl_cluster_rank() + 1) % wl_cluster_size(); }

// The same, a cluster of single warps a row: every block sends its pair to every peer.
WL_KERNEL(test_cluster_sum, TestArgs, 32, 1) {
  WL_SMEM(wl_u64, sent, 16);
  WL_SMEM(wl_u64, counts, 1);
  WL_DYNAMIC_SMEM(float, row, 0, 4 * wl_threads());
  const wl_u32 ranks = wl_cluster_size(), rank = wl_cluster_rank();
  const wl_u32 packs = (wl_u32)(args.n / 4), row_index = wl_block() / ranks;
  const wl_u32 pack = rank * wl_threads() + wl_thread();
  if (pack < packs) wl_cp_async16(row, 4 * wl_thread(), args.x + row_index * args.n + 4 * pack);
  wl_cp_async_commit();
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, 8 * ranks), wl_mbarrier_show();
  wl_cluster_arrive();
  wl_cp_async_wait();
  Pair p = {-1e30f, 0.f};
  if (pack < packs) {
    const wl_u32x4 v = wl_lds128(row, 4 * wl_thread());
    p = merge(merge({wl_f32(v.x), 1.f}, {wl_f32(v.y), 1.f}), merge({wl_f32(v.z), 1.f}, {wl_f32(v.w), 1.f}));
  }
  for (wl_u32 o = 16; o > 0; o /= 2) {
    p = merge(p, {wl_shfl_xor(WL_FULL_MASK, p.max, o), wl_shfl_xor(WL_FULL_MASK, p.sum, o)});
  }
  wl_cluster_wait();
  if (wl_thread() < ranks) {
    wl_st_async(wl_peer(sent, rank, wl_thread()), wl_peer(counts, 0, wl_thread()), wl_bit_cast<wl_u64>(p));
  }
  wl_mbarrier_wait(counts, 0);
  if (wl_thread() == 0 && rank == 0) {
    p = wl_bit_cast<Pair>((wl_u64)sent[0]);
    for (wl_u32 r = 1; r < ranks; r++) p = merge(p, wl_bit_cast<Pair>((wl_u64)sent[r]));
    wl_st(args.y + row_index, p.max + wl_lg2(p.sum));
  }
}

// One warp waits for what is sent, and tells the block of it by a barrier; twice.
WL_KERNEL(test_messages, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 2);
  WL_SMEM(wl_u64, counts, 2);
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, 8), wl_mbarrier_init(counts, 1, 8), wl_mbarrier_show();
  wl_cluster_arrive();
  wl_cluster_wait();
  for (int round = 0; round < 2; round++) {
    if (wl_thread() == 0) {
      wl_st_async(wl_peer(sent, round, peer()), wl_peer(counts, round, peer()), 10 * wl_block() + round);
    }
    if (wl_warp() == 1) wl_mbarrier_wait(counts, round);
    wl_syncthreads();
    wl_st(args.y + 128 * round + wl_block() % 2 * 64 + wl_thread(), (float)(wl_u64)sent[round]);
  }
}

// Warp-synchronous traffic through shared memory, ordered by wl_syncwarp alone.
WL_KERNEL(test_syncwarp, TestArgs, 1024, 1) {
  WL_SMEM(float, s, 1024);
  for (int i = 0; i < 3; i++) {
    s[wl_thread()] = (float)wl_lane();
    wl_syncwarp();
    const float v = s[wl_thread() ^ 1];
    wl_syncwarp();
    s[wl_thread()] = v;
  }
  wl_st(args.y + wl_thread(), (float)s[wl_thread()]);
}

// One of each collective: 16 words a lane, so that the host can work them out too.
WL_KERNEL(test_collectives, TestArgs, 32, 1) {
  const wl_u32 lane = wl_lane(), all = WL_FULL_MASK, half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  wl_u32* out = args.counter + 16 * lane;
  wl_st(out + 0, wl_shfl_xor(all, lane, 5));
  wl_st(out + 1, wl_shfl_down(all, lane, 3));
  wl_st(out + 2, wl_shfl_up(all, lane, 3));
  wl_st(out + 3, wl_shfl(all, lane, 7));
  wl_st(out + 4, wl_shfl_xor(all, lane, 9, 8));
  wl_st(out + 5, wl_shfl_down(all, lane, 3, 8));
  wl_st(out + 6, wl_shfl_up(all, lane, 3, 8));
  wl_st(out + 7, wl_shfl(all, lane, 7 + lane, 8));
  wl_st(out + 8, wl_ballot(all, lane % 3 == 0));
  wl_st(out + 9, wl_redux_add(half, lane));
  wl_st(out + 10, wl_redux_min(half, lane));
  wl_st(out + 11, wl_redux_max(half, lane));
  wl_st(out + 12, wl_redux_or(half, 1u << lane));
  wl_st(out + 13, (wl_u32)(wl_shfl_xor(all, (wl_u64)lane << 32, 1) >> 32));
  wl_st(out + 14, wl_syncthreads_count(lane < 5) + 100 * wl_syncthreads_or(lane == 9) + 1000 * wl_syncthreads_and(lane == 9));
  // Lanes of which some meet elsewhere first.
  wl_u32 v = 0;
  if (lane % 2) v = wl_redux_add(0xaaaaaaaau, 1);
  wl_syncwarp();
  wl_st(out + 15, v + (wl_any(all, lane == 31) ? 100 : 0) + (wl_all(all, lane < 31) ? 1000 : 0));
}

// y = a·b of 16 by 16 and 16 by 8 numbers, elements of fragments numbered as the PTX manual does: by f16,
// then by bf16.
template <class T, wl_u32 (*pack)(float, float)>
WL_FN void multiply(const float* a, const float* b, float* y) {
  const wl_u32 group = wl_lane() >> 2, in_group = wl_lane() % 4;
  wl_u32 as[4], bs[2];
  float d[4] = {1.f, 2.f, 3.f, 4.f};
  for (wl_u32 r = 0; r < 4; r++) {
    float two[2];
    for (wl_u32 i = 2 * r; i < 2 * r + 2; i++) {
      const wl_u32 row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
      const wl_u32 column = 2 * in_group + (i & 1) + (i < 4 ? 0 : 8);
      two[i % 2] = wl_ld(a + 16 * row + column);
    }
    as[r] = pack(two[0], two[1]);
  }
  for (wl_u32 r = 0; r < 2; r++) {
    const wl_u32 row = 2 * in_group + 8 * r;
    bs[r] = pack(wl_ld(b + 8 * row + group), wl_ld(b + 8 * (row + 1) + group));
  }
  wl_mma<T>(d, as, bs[0], bs[1]);
  for (wl_u32 i = 0; i < 4; i++) wl_st(y + 8 * (i < 2 ? group : group + 8) + 2 * in_group + (i & 1), d[i]);
}
WL_KERNEL(test_tensor_cores, TestArgs, 32, 1) {
  multiply<wl_f16, wl_pack_f16x2>(args.x, args.x + 256, args.y);
  multiply<wl_bf16, wl_pack_bf16x2>(args.x, args.x + 256, args.y + 128);
}

// The last block to finish sums what all wrote.
WL_KERNEL(test_last_block, TestArgs, 32, 1) {
  WL_SMEM(wl_u32, last, 1);
  if (wl_thread() == 0) {
    wl_st(args.y + 1 + wl_block(), (float)wl_block());
    wl_threadfence();
    last[0] = wl_atomic_add(args.counter, 1u);
  }
  wl_syncthreads();
  if (last[0] == wl_blocks() - 1 && wl_thread() == 0) {
    wl_threadfence();
    float sum = 0;
    for (wl_u32 b = 0; b < wl_blocks(); b++) sum += wl_ld_cg(args.y + 1 + b);
    wl_st(args.y, sum);
  }
}

// Leaves y[block], for a launch after it that begins early.
WL_KERNEL(test_leads, TestArgs, 32, 1) {
  wl_grid_launch_dependents();
  if (wl_thread() == 0) wl_st(args.y + wl_block(), (float)wl_block());
}
// Reads what neither writes, waits, and reads what that launch has left.
WL_KERNEL(test_follows, TestArgs, 32, 1) {
  const float x = wl_ld(args.x + wl_thread());
  wl_grid_wait();
  wl_st(args.y + 64 + 32 * wl_block() + wl_thread(), x + wl_ld(args.y + wl_block()));
}

// Blocks take turns: each adds 1 to what the one before has left, which runs or has ended.
WL_KERNEL(test_turns, TestArgs, 64, 1) {
  WL_SMEM(wl_u32, turn, 1);
  if (wl_thread() == 0) turn[0] = wl_atomic_add(args.counter, 1u);
  wl_syncthreads();
  if (wl_thread() == 0 && turn[0] > 0) {
    while (wl_ld_acquire(args.counter + turn[0]) == 0) wl_pause();
  }
  wl_syncthreads();
  if (wl_thread() == 32) {
    wl_st(args.y + turn[0], turn[0] == 0 ? 1.f : wl_ld_cg(args.y + turn[0] - 1) + 1.f);
    wl_ticket(args.counter + 1 + turn[0], 1);
  }
}

// y[n] = x[n]: far into memory.
WL_KERNEL(test_far, TestArgs, 32, 1) {
  if (wl_thread() == 0) wl_st(args.y + args.n, wl_ld(args.x + args.n));
}

// ---- Faults ----------------------------------------------------------------------------------
WL_KERNEL(fault_barrier_after_exit, TestArgs, 64, 1) {
  if (wl_thread() == 5) return;
  wl_syncthreads();  // FAULT barrier_after_exit
}
WL_KERNEL(fault_two_barriers, TestArgs, 64, 1) {
  if (wl_thread() < 32) {
    wl_syncthreads();  // FAULT two_barriers
  } else {
    wl_syncthreads();  // FAULT two_barriers
  }
}
WL_KERNEL(fault_lane_exited, TestArgs, 64, 1) {
  if (wl_lane() == 3) return;
  wl_shfl_xor(WL_FULL_MASK, 1.f, 1);  // FAULT lane_exited
}
WL_KERNEL(fault_lane_at_barrier, TestArgs, 64, 1) {
  if (wl_lane() == 3) wl_syncthreads();  // FAULT lane_at_barrier
  wl_shfl_xor(WL_FULL_MASK, 1.f, 1);     // FAULT lane_at_barrier
  if (wl_lane() != 3) wl_syncthreads();
}
WL_KERNEL(fault_not_in_mask, TestArgs, 64, 1) {
  wl_ballot(0x0000ffffu, true);  // FAULT not_in_mask
}
WL_KERNEL(fault_reads_outside_mask, TestArgs, 64, 1) {
  if (wl_lane() < 16) wl_shfl_xor(0x0000ffffu, 1.f, 16);  // FAULT reads_outside_mask
}
WL_KERNEL(fault_lane_does_not_exist, TestArgs, 64, 1) {
  wl_syncwarp();  // FAULT lane_does_not_exist
}
WL_KERNEL(fault_two_collectives, TestArgs, 64, 1) {
  if (wl_lane() < 16) {
    wl_shfl_xor(WL_FULL_MASK, 1.f, 1);  // FAULT two_collectives
  } else {
    wl_ballot(WL_FULL_MASK, true);  // FAULT two_collectives
  }
}
WL_KERNEL(fault_masks_differ, TestArgs, 64, 1) {
  wl_ballot(wl_lane() < 16 ? WL_FULL_MASK : 0xfffffffeu, true);  // FAULT masks_differ
}
WL_KERNEL(fault_global_read_past, TestArgs, 64, 1) {
  wl_ld(args.x + args.n * (wl_thread() == 40));  // FAULT global_read_past
}
WL_KERNEL(fault_global_write_before, TestArgs, 64, 1) {
  wl_st(args.y - 1, 0.f);  // FAULT global_write_before
}
WL_KERNEL(fault_global_straddle, TestArgs, 64, 1) {
  wl_ld128(args.x + args.n - 2);  // FAULT global_straddle
}
WL_KERNEL(fault_global_misaligned, TestArgs, 64, 1) {
  wl_ld128(args.x + 1);  // FAULT global_misaligned
}
WL_KERNEL(fault_global_uninitialised, TestArgs, 64, 1) {
  wl_ld(args.y);  // FAULT global_uninitialised
}
WL_KERNEL(fault_atomic_past, TestArgs, 64, 1) {
  wl_atomic_add(args.counter + (1 << 20), 1u);  // FAULT atomic_past
}
WL_KERNEL(fault_shared_past, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  WL_SMEM(float, other, 64);
  s[wl_thread() + 1] = 0.f;  // FAULT shared_past
  other[wl_thread()] = 0.f;
}
WL_KERNEL(fault_dynamic_past, TestArgs, 64, 1) {
  WL_DYNAMIC_SMEM(float, s, 0, 1024);  // FAULT dynamic_past
  s[0] = 0.f;
}
WL_KERNEL(fault_shared_misaligned, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  if (wl_thread() == 0) wl_sts128(s, 2, wl_u32x4{});  // FAULT shared_misaligned
}
WL_KERNEL(fault_shared_uninitialised, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  if (wl_thread() < 63) s[wl_thread()] = 1.f;
  wl_syncthreads();
  const float v = s[wl_thread()];  // FAULT shared_uninitialised
  wl_st(args.y + wl_thread(), v);
}
WL_KERNEL(fault_race_read, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  s[wl_thread()] = 0.f;
  wl_syncthreads();
  s[wl_thread()] = 1.f;                   // FAULT race_read
  const float v = s[63 - wl_thread()];  // FAULT race_read
  wl_st(args.y + wl_thread(), v);
}
WL_KERNEL(fault_race_write, TestArgs, 64, 1) {
  WL_SMEM(float, s, 1);
  if (wl_lane() == 0) s[0] = (float)wl_warp();  // FAULT race_write
}
WL_KERNEL(fault_race_reuse, TestArgs, 64, 1) {
  WL_SMEM(float, s, 1);
  float sum = 0.f;
  for (int i = 0; i < 2; i++) {
    if (wl_thread() == 0) s[0] = 1.f;  // FAULT race_reuse
    wl_syncthreads();
    sum += s[0];  // FAULT race_reuse
  }
  wl_st(args.y + wl_thread(), sum);
}
WL_KERNEL(fault_race_shuffle_orders_nothing, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  s[wl_thread()] = 1.f;
  wl_shfl_xor(WL_FULL_MASK, 1.f, 1);
  const float v = s[wl_thread() ^ 1];  // FAULT race_shuffle_orders_nothing
  wl_st(args.y + wl_thread(), v);
}
WL_KERNEL(fault_race_syncwarp_across_warps, TestArgs, 64, 1) {
  WL_SMEM(float, s, 64);
  s[wl_thread()] = 1.f;
  wl_syncthreads();
  s[wl_thread()] = 2.f;  // FAULT race_syncwarp_across_warps
  wl_syncwarp();
  const float v = s[wl_thread() ^ 32];  // FAULT race_syncwarp_across_warps
  wl_st(args.y + wl_thread(), v);
}
WL_KERNEL(fault_cp_async_not_awaited, TestArgs, 64, 1) {
  WL_DYNAMIC_SMEM(float, s, 0, 64);
  if (wl_thread() < 16) wl_cp_async16(s, 4 * wl_thread(), args.x + 4 * wl_thread());
  wl_cp_async_commit();
  wl_syncthreads();
  const float v = s[wl_thread()];  // FAULT cp_async_not_awaited
  wl_st(args.y + wl_thread(), v);
}
WL_KERNEL(fault_peer_exited, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 2);
  WL_SMEM(wl_u64, counts, 1);
  listen(counts, 0);
  wl_mbarrier_wait(counts, 0);
  if (wl_cluster_rank() == 1) return;
  for (int i = 0; i < 3; i++) wl_syncthreads();
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, 1), wl_peer(counts, 0, 1), 1);  // FAULT peer_exited
}
WL_KERNEL(fault_peer_not_started, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 2);
  WL_SMEM(wl_u64, counts, 1);
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, peer()), wl_peer(counts, 0, peer()), 1);  // FAULT peer_not_started
  listen(counts, 8);
}
WL_KERNEL(fault_sent_to_none, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 1);
  WL_SMEM(wl_u64, counts, 1);
  wl_cluster_arrive();
  wl_cluster_wait();
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, peer()), wl_peer(counts, 0, peer()), 1);  // FAULT sent_to_none
}
WL_KERNEL(fault_not_shown, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, counts, 1);
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, 8);
  wl_cluster_arrive();  // FAULT not_shown
  wl_cluster_wait();
}
WL_KERNEL(fault_not_arrived, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 1);
  WL_SMEM(wl_u64, counts, 1);
  listen(counts, 8);
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, wl_cluster_rank()), wl_peer(counts, 0, wl_cluster_rank()), 1);
  wl_syncthreads();
  const wl_u64 v = sent[0];  // FAULT not_arrived
  wl_mbarrier_wait(counts, 0);
  wl_st(args.y + wl_thread(), (float)v);
}
// Nobody tells the peer that this block has read what it sent first.
WL_KERNEL(fault_sent_too_soon, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 1);
  WL_SMEM(wl_u64, counts, 2);
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, 8), wl_mbarrier_init(counts, 1, 8), wl_mbarrier_show();
  wl_cluster_arrive();
  wl_cluster_wait();
  float sum = 0.f;
  for (int round = 0; round < 2; round++) {
    if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, peer()), wl_peer(counts, round, peer()), 1);  // FAULT sent_too_soon
    wl_mbarrier_wait(counts, round);
    sum += (float)(wl_u64)sent[0];
  }
  wl_st(args.y + wl_thread(), sum);
}
WL_KERNEL(fault_too_few_bytes, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 1);
  WL_SMEM(wl_u64, counts, 1);
  listen(counts, 16);
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, peer()), wl_peer(counts, 0, peer()), 1);
  wl_mbarrier_wait(counts, 0);  // FAULT too_few_bytes
}
WL_KERNEL(fault_too_many_bytes, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 2);
  WL_SMEM(wl_u64, counts, 1);
  listen(counts, 8);
  for (wl_u32 i = 0; i < 2 && wl_thread() == 0; i++) {
    wl_st_async(wl_peer(sent, i, peer()), wl_peer(counts, 0, peer()), 1);  // FAULT too_many_bytes
  }
  wl_mbarrier_wait(counts, 0);
}
WL_KERNEL(fault_ends_unheard, TestArgs, 64, 1) {
  WL_SMEM(wl_u64, sent, 1);
  WL_SMEM(wl_u64, counts, 1);
  if (wl_thread() == 0) wl_mbarrier_init(counts, 0, 8), wl_mbarrier_show();  // FAULT ends_unheard
  wl_cluster_arrive();
  wl_cluster_wait();
  if (wl_thread() == 0) wl_st_async(wl_peer(sent, 0, wl_cluster_rank()), wl_peer(counts, 0, wl_cluster_rank()), 1);
}
WL_KERNEL(fault_early_read, TestArgs, 32, 1) {
  const float v = wl_ld(args.y + wl_block());  // FAULT early_read
  wl_grid_wait();
  wl_st(args.y + 64 + wl_thread(), v);
}
WL_KERNEL(fault_early_write, TestArgs, 32, 1) {
  wl_st(args.y + 64 + wl_thread(), 1.f);  // FAULT early_write
  wl_grid_wait();
}
WL_KERNEL(fault_never_waits, TestArgs, 32, 1) {
  if (wl_block() == 0) wl_grid_wait();
}
// Nobody has a turn after the last.
WL_KERNEL(fault_waits_for_later, TestArgs, 32, 1) {
  if (wl_thread() == 0) {
    const wl_u32 turn = wl_atomic_add(args.counter, 1u);
    while (wl_ld_acquire(args.counter) <= turn + 1) wl_pause();  // FAULT waits_for_later
  }
}
WL_KERNEL(fault_cluster_wait_alone, TestArgs, 64, 1) {
  wl_cluster_wait();  // FAULT cluster_wait_alone
}
WL_KERNEL(fault_deadlock, TestArgs, 64, 1) {
  if (wl_cluster_rank() == 0) {
    wl_cluster_arrive(), wl_cluster_wait();  // FAULT deadlock
  } else if (wl_warp() == 0) {
    wl_syncthreads();  // FAULT deadlock
  } else {
    wl_cluster_arrive(), wl_cluster_wait();  // FAULT deadlock
    wl_syncthreads();
  }
}
