// What adaptive embeddings need beside rows by cluster (clusters.cu) and sums by class (segment_sum.cu).
// Launches: src/cuda/loss/adaptive_embedding.rs.
#pragma once
#include "core/args.cuh"

// Of each row its class by frequency, -1 where it has none, and its slot in its cluster.
WL_FN void embedding_places_body(const EmbeddingArgs& a) {
  const wl_i64 slots = a.bins.begins[a.bins.clusters];
  for (wl_i64 i = first_of_grid(); i < a.bins.n + slots; i += step_of_grid()) {
    if (i < a.bins.n) {
      const wl_i64 cluster = wl_ld(a.bins.cluster + i), local = wl_ld(a.bins.local + i);
      wl_st(a.places + i, cluster < 0 ? local : a.bins.cutoffs[cluster] + local);
      continue;
    }
    const wl_i64 slot = i - a.bins.n;
    if (wl_ld(a.bins.locals + slot) < 0) continue;
    wl_i64 cluster = 0;
    while (cluster + 1 < a.bins.clusters && slot >= a.bins.begins[cluster + 1]) cluster++;
    wl_st(a.slots + wl_ld(a.bins.rows + slot), slot - a.bins.begins[cluster]);
  }
}
