// Kernels of the crate with a mistake in each, to be put in the place of the sound ones
// (WARPLOSS_EMULATOR_REPLACE): `warploss check` must find every one of them.
#include "loss/cross_entropy.cu"
#include "loss/linear_softmax.cu"
#include "loss/log_softmax.cu"
#include "loss/logsumexp.cu"
#include "loss/sampled_softmax.cu"
#include "batch/segment_sum.cu"

// The target's gradient without its -1.
struct ForgetsTarget : CrossEntropy<WL_PLAIN> {
  WL_FN ForgetsTarget(const CrossEntropyArgs& a) : CrossEntropy<WL_PLAIN>(a) {}
  WL_FN float target_gradient(const Row& row) const { return row.prob * row.at_target; }
};
WL_KERNEL(broken_target, CrossEntropyArgs, 128, 8) { lanes_row<Over<ForgetsTarget, f32>, 4, true>(args); }

// A sum that is not scaled when its maximum moves.
struct StaleSum : Lse {
  static WL_FN StaleSum empty() { return {Lse::empty()}; }
  WL_FN void merge(const StaleSum& other, float) {
    max = wl_max(max, other.max);
    sum += other.sum;
  }
};
struct ForgetsRescale : LogSumExp {
  typedef StaleSum State;
  WL_FN ForgetsRescale(const LogSumExpArgs& a) : LogSumExp(a) {}
};
WL_KERNEL(broken_merge, LogSumExpArgs, 128, 8) { lanes_row<Over<ForgetsRescale, bf16>, 32, false>(args); }

// A row without its last column.
WL_KERNEL(broken_length, LogSoftmaxArgs, 128, 8) {
  LogSoftmaxArgs shorter = args;
  shorter.rows.classes -= shorter.rows.classes > 3;
  lanes_row<Over<LogSoftmax, f32>, 4, true>(shorter);
}

// A subtle one: a relative error of 2e-5 in every probability.
struct Imprecise : CrossEntropy<WL_PLAIN> {
  WL_FN Imprecise(const CrossEntropyArgs& a) : CrossEntropy<WL_PLAIN>(a) {}
  template <int n, class Columns>
  WL_FN void gradient(const Row& row, float (&x)[n], const Columns& columns, float (&out)[n]) const {
    CrossEntropy<WL_PLAIN>::gradient(row, x, columns, out);
    WL_UNROLL for (int e = 0; e < n; e++) out[e] *= 1.00002f;
  }
};
WL_KERNEL(broken_precision, CrossEntropyArgs, 512, 2) { on_chip_row<Over<Imprecise, f32>, false>(args); }

// A cluster of few features without its last class.
WL_KERNEL(broken_classes, TileArgs, 256, 2) {
  TileArgs fewer = args;
  fewer.row.rows.classes -= 1;
  tile_forward<CrossEntropy<WL_PLAIN>, bf16>(fewer);
}

// A class without the last of its parts, where that is the last of all.
WL_KERNEL(broken_parts, SegmentArgs, 256, 1) {
  SegmentArgs fewer = args;
  fewer.n -= 1;
  segment_sums_body(fewer);
}

// Negatives that are their row's target, which were to be left out.
WL_KERNEL(broken_hits, SampledArgs, 256, 1) {
  SampledArgs keeps = args;
  keeps.keep_hits = 1;
  sampled_logits_body(keeps);
}
