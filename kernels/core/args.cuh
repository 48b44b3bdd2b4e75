// What a launch hands to a kernel: one struct, the same on both sides (src/cuda/args.rs).
#pragma once
#include "core/intrinsics.cuh"

// Where a field lies. Checked by the emulator's build alone: NVRTC before 13.4 does not know offsetof.
#if !WL_EMULATED
#define WL_OFFSET(type, field, at, message) static_assert(true, message)
#else
#define WL_OFFSET(type, field, at, message) static_assert(__builtin_offsetof(type, field) == at, message)
#endif

// The first of the elements that a thread takes of many, and how far on the next is.
WL_FN wl_i64 first_of_grid() { return (wl_i64)wl_block() * wl_threads() + wl_thread(); }
WL_FN wl_i64 step_of_grid() { return (wl_i64)wl_blocks() * wl_threads(); }

// Goes through the elements of n rows without a division an element.
struct Elements {
  wl_i64 row, column, rows_a_step, columns_a_step, columns;
  WL_FN explicit Elements(wl_i64 columns)
      : row(first_of_grid() / columns), column(first_of_grid() % columns), rows_a_step(step_of_grid() / columns),
        columns_a_step(step_of_grid() % columns), columns(columns) {}
  WL_FN void next() {
    row += rows_a_step, column += columns_a_step;
    if (column >= columns) row++, column -= columns;
  }
};

// Numbers of the batch: written by the census, read by every row.
struct Totals {
  double weight;         // sum of the kept rows' weights
  double class_weight;   // sum of the weights of all classes
  wl_i64 kept;           // rows that are not ignored
  wl_i64 bad_row;        // the first row whose target is no class, or -1
  wl_i64 bad_value;      // its target
  double per_weight;     // 1 / weight; NaN where that is 0
  float per_row;         // 1 / kept
  float weight_unit;     // a power of two: class weights times this add up within f32
};

// The device's memory of an error, until the host asks.
struct Status {
  wl_u64 kind;  // 0: none; else src/cuda/status.rs
  wl_i64 index;
  wl_i64 value;  // the target, or the weight's bits
  wl_i64 classes;
  wl_i64 ignore_index;
};

// A row's loss, in the type that its losses have: f32 for the caller, f64 for what adds them up.
WL_FN void store_loss(void* losses, bool wide, wl_i64 row, double loss) {
  if (wide) {
    wl_st((double*)losses + row, loss);
  } else {
    wl_st((float*)losses + row, (float)loss);
  }
}

// Rows that a schedule goes through. Pointers that a loss or a schedule has no use for are null.
struct RowArgs {
  const void* x;            // rows of logits
  void* y;                  // rows written: the gradient, or log-probabilities
  const void* upstream;     // gradient of the result: one number, one a row, or one an element
  const void* target;       // class indices, or rows as long as the logits'
  const void* weight;       // class weights
  float* loss;              // per row, doubles where they are wide
  float* z_loss;            // per row, the same
  float* lse;               // per row: written forward, read backward
  float* partials;          // split rows: a State a part, then a float a part
  float* row_target;        // split rows: the target's x, saved before a gradient overwrites it
  const Totals* totals;
  const void* second;       // gradient of the row's second result, as `upstream`
  wl_i64* argmax;           // per row: the class that beats all others
  wl_i64* rank;             // per row: how many classes beat the target
  wl_i64 rows, classes;
  wl_i64 x_stride, y_stride, upstream_stride, second_stride;  // elements between rows
  wl_i64 ignore_index;
  float scale;    // z = scale * x, before a cap
  float cap;      // 0: none
  float hard;     // 1 - epsilon
  float soft;     // epsilon / classes
  float cap_first;  // of a soft-cap, as `cap_rate` and `cap_line`: src/loss/soft_cap.rs
  float number;   // the upstream gradient, where `upstream` is null
  float second_number;
  wl_u32 upstream_kind, second_kind, target_kind, weight_kind;
  wl_u32 mean;       // divide by the totals
  wl_u32 whole;      // per-row losses include the z-loss
  wl_u32 parts;      // split rows: blocks a row
  wl_u32 slice;      // packs of a block
  wl_u32 coarse;     // split sums: only rows whose saved lse is too coarse
  float teacher;     // the target holds a teacher's logits, times this
  wl_u32 wide;       // per-row losses are doubles
  void* grad_target; // gradient of a target of the logits' size
  wl_i64 target_stride, grad_target_stride;
  const void* labels;  // which rows do not count, where the target is of the logits' size; of weight_kind
  double lambda;       // of the z-loss
  float cap_rate, cap_line;
};
static_assert(sizeof(void*) == 8 && sizeof(RowArgs) == 288, "RowArgs: src/cuda/args.rs");
WL_OFFSET(RowArgs, rows, 112, "RowArgs: src/cuda/args.rs");
WL_OFFSET(RowArgs, scale, 168, "RowArgs: src/cuda/args.rs");
WL_OFFSET(RowArgs, coarse, 228, "RowArgs: src/cuda/args.rs");
WL_OFFSET(RowArgs, grad_target, 240, "RowArgs: src/cuda/args.rs");

// Targets, class weights and rows' losses.
struct BatchArgs {
  const void* target;    // class indices; null where every row counts
  const void* weight;
  const void* loss;      // per row, doubles where they are wide
  const void* z_loss;    // per row, or null
  double* chunks;        // two numbers a chunk
  wl_i64* bad;           // a chunk's first bad row, or -1
  Totals* totals;
  Status* status;
  float* loss_out;
  float* z_loss_out;     // or null
  wl_i64 rows, classes, ignore_index, chunk;
  wl_u32 target_kind, weight_kind;
  wl_u32 mean;
  wl_u32 bad_target;     // the kind of error that a class out of range is
  wl_u32 wide, pad;      // rows' losses are doubles
};
static_assert(sizeof(Totals) == 56 && sizeof(Status) == 40, "src/cuda/args.rs");
static_assert(sizeof(BatchArgs) == 136, "BatchArgs: src/cuda/args.rs");
WL_OFFSET(BatchArgs, rows, 80, "BatchArgs: src/cuda/args.rs");
WL_OFFSET(BatchArgs, mean, 120, "BatchArgs: src/cuda/args.rs");

// Ranks of rows, and the limits that they are counted below.
struct RankArgs {
  const wl_i64* ranks;
  const wl_i64* limits;
  wl_i64* counts;  // one a limit
  wl_i64 rows;
};
static_assert(sizeof(RankArgs) == 32, "RankArgs: src/cuda/args.rs");
// Negative log-likelihood: position k of block n has class c at n * stride + c * class_stride + k.
struct NllArgs {
  const void* x;
  void* y;                // gradient
  const void* target;     // class indices, a block's positions after one another
  const void* weight;     // class weights, or null
  const void* upstream;   // gradient of the result: one number or one a row, or null
  float* loss;            // per row, doubles where they are wide
  const Totals* totals;
  wl_i64 rows, classes;   // blocks times positions; classes
  wl_i64 stride, class_stride, positions;
  wl_i64 ignore_index;
  wl_i64 parts, slice;    // rows of neighbouring classes: stretches of a row, and their packs
  float number;           // the upstream gradient, where `upstream` is null
  wl_u32 kind;            // of x and y
  wl_u32 target_kind, weight_kind, upstream_kind;
  wl_u32 upstream_rows;   // 1: one a row
  wl_u32 mean;            // divide by the totals
  wl_u32 wide;            // per-row losses are doubles
};
static_assert(sizeof(NllArgs) == 152, "NllArgs: src/cuda/args.rs");
WL_OFFSET(NllArgs, rows, 56, "NllArgs: src/cuda/args.rs");
WL_OFFSET(NllArgs, mean, 144, "NllArgs: src/cuda/args.rs");

// The rows of a layer by cluster. A cluster has as many slots as its capacity; `begins` says
// which, with the end of the last behind it.
#define WL_MAX_CLUSTERS 32
struct BinArgs {
  const void* target;      // class indices
  const void* weight;      // row weights, or null
  const void* upstream;    // gradient of the loss: one number, or one a row, or null
  const wl_u32* places;    // of a class its place by frequency, or null
  wl_i64* column;          // per row: the head's column, or -1 where the row does not count
  wl_i64* local;           // per row: the class, counted from its cluster's first
  wl_i64* cluster;         // per row: its cluster, or one of WL_ROW_*
  wl_i64* rows;            // per slot: the row
  wl_i64* locals;          // per slot: its class in the cluster, or -1: nothing is there
  float* factor;           // per row: the gradient of minus its log-probability
  float* factors;          // per slot: the same
  wl_i64* counts;          // per cluster: its rows, those beyond its capacity as well
  Totals* totals;
  Status* status;
  float* nll;              // per row: minus the log-probability
  float* output;           // per row
  float* loss;             // per row, or one
  wl_i64 n, classes, ignore_index, clusters;
  wl_i64 shortlist;        // the first cluster's column of the head; where there is no such, so low that
                           // every cluster's is below 0
  wl_i64 cutoffs[WL_MAX_CLUSTERS];
  wl_i64 begins[WL_MAX_CLUSTERS + 1];
  float number;            // the upstream gradient, where `upstream` is null
  wl_u32 target_kind, weight_kind, upstream_kind;
  wl_u32 upstream_rows;    // 1: one a row
  wl_u32 ignores;          // whether there is an ignore_index
  wl_u32 mean;             // divide by the weights
  wl_u32 whole;            // a loss a row
  wl_u32 bad_target;       // the kind of error that a target out of range is
  wl_u32 pad;
};
static_assert(sizeof(BinArgs) == 736, "BinArgs: src/cuda/args/layers.rs");
WL_OFFSET(BinArgs, cutoffs, 176, "BinArgs: src/cuda/args/layers.rs");
WL_OFFSET(BinArgs, number, 696, "BinArgs: src/cuda/args/layers.rs");

// Rows that have no cluster. What is at most WL_ROW_BAD_TARGET is an error.
enum : wl_i64 {
  WL_ROW_HEAD = -1,
  WL_ROW_IGNORED = -2,
  WL_ROW_BAD_TARGET = -3,
  WL_ROW_BAD_WEIGHT = -4,
  WL_ROW_NEVER_DRAWN = -5  // sampled_softmax.cu finds it
};

// Rows of an adaptive embedding's index.
struct EmbeddingArgs {
  BinArgs bins;
  wl_i64* places;  // per row: its class by frequency, or -1
  wl_i64* slots;   // per row of a cluster: its slot there
};
static_assert(sizeof(EmbeddingArgs) == 752, "EmbeddingArgs: src/cuda/args/layers.rs");

// Rows against their targets and sampled classes. Weights, bias, input and gradient are of one kind.
struct SampledArgs {
  wl_i64* column;               // per row: its target, or -1 where the row does not count
  wl_i64* cluster;              // per row: as of BinArgs
  wl_i64* marks;                // per row: the target's column of its logits, or -1
  float* target_offsets;        // per row: b - ln E of the target
  float* offsets;               // per negative: b - ln E
  const wl_i64* drawn;          // the negatives
  const double* probabilities;  // of each class, or null: log-uniform
  const void* weight;           // [classes, features]
  const void* bias;             // [classes], or null
  const void* x;                // [n, features]
  float* z;                     // [n, samples + 1], the target's logit last
  const float* products;        // [n, features]: the gradient's part of the negatives
  void* grad;                   // [n, features]: the gradient of the input
  double tries;                 // draws of distinct negatives; 0: they may repeat
  wl_i64 n, samples, classes, features;
  wl_i64 weight_stride, x_stride, z_stride, grad_stride;  // elements between rows
  wl_u32 kind;
  wl_u32 keep_hits;             // negatives that are the row's target count
};
static_assert(sizeof(SampledArgs) == 184, "SampledArgs: src/cuda/args/layers.rs");

// Parts that are sorted by class, eight bits of it a pass.
struct SortArgs {
  const wl_i64* first;    // the classes of parts 0 to `split`; below 0: none
  const wl_i64* second;   // those of the others
  const wl_i64* keys;     // per place: classes as sorted so far, and the parts
  const wl_i64* parts;
  wl_i64* to_keys;        // the same after this pass
  wl_i64* to_parts;
  wl_u32* counts;         // [256, tiles]
  wl_i64 n, split, classes, tiles;
  wl_u32 shift, pad;
};
static_assert(sizeof(SortArgs) == 96, "SortArgs: src/cuda/args/layers.rs");

// Rows of parts, added up by class. Parts before `split` have rows of `whole`, as they are; part
// split + i has row slots[i] - from of `rest` times factors[i], if that slot is from `from` to `to_slot`.
struct SegmentArgs {
  const wl_i64* keys;     // per place, sorted
  const wl_i64* parts;
  const void* whole;
  const void* rest;       // or null: ones
  const wl_i64* slots;    // or null: as they stand
  const float* factors;   // or null: ones
  void* to;               // a row a class, from `begin` to `end`
  wl_i64 n, split, from, to_slot, begin, end, columns;
  wl_i64 whole_stride, rest_stride, to_stride;  // elements between rows
  wl_u32 whole_kind, rest_kind, to_kind, pad;
};
static_assert(sizeof(SegmentArgs) == 152, "SegmentArgs: src/cuda/args/layers.rs");

// Slots of a cluster against its weights, both of 16 bits, of at most 64 features.
struct NarrowArgs {
  const void* hidden;     // [n, width], f32
  const void* weight;     // [classes, width]
  const wl_i64* targets;  // per slot
  const float* factors;   // per slot: the upstream gradient
  const wl_i64* count;    // rows of the cluster, of which these slots hold those from `from` on
  float* partials;        // [splits, n, 3] or [splits, n, width]
  float* scale;           // per slot: the largest logit, 1 / the sum of exponentials relative to it
  float* miss;            // per slot: 1 - p of the target
  float* nll;             // per slot
  void* to;               // the gradient of hidden rows or of weights
  wl_i64 n, classes, width, from;
  wl_i64 hidden_stride, weight_stride, to_stride;  // elements between rows
  wl_i64 splits;          // parts of the classes
  wl_u32 to_kind;
  wl_u32 add;             // to what is there
};
static_assert(sizeof(NarrowArgs) == 152, "NarrowArgs: src/cuda/args/layers.rs");

// Rows of a matrix from and to other places.
struct PanelArgs {
  const void* from;        // or null: zeros
  void* to;
  const wl_i64* rows;      // where a row is, or goes; null: where it stands
  const wl_i64* marks;     // below 0: the row holds nothing; null: all do
  wl_i64 n, columns, from_stride, to_stride;
  wl_u32 from_kind, to_kind;
  wl_u32 add;              // to what is there
  wl_u32 parts;            // which bf16 part stands where (panel_parts): a digit of 2 bits each
};
static_assert(sizeof(PanelArgs) == 80, "PanelArgs: src/cuda/args/layers.rs");

// Rows of log-probabilities of classes, by their place.
struct DistributionArgs {
  float* log_prob;          // [n, places], `stride` elements between rows
  const float* head;        // log-probabilities of the head's columns, [.., head_size]
  const wl_u32* classes;    // of a place its class, or null
  wl_i64* picked;           // [.., k], from row `row` on
  float* values;            // the same, or null: drawn; renamed: [n, ..], `k` elements between rows
  const wl_i64* rows;       // per slot of a cluster: the row, or -1; null: the head's, as they stand
  wl_i64* needed;           // [clusters, n]: the rows that need each
  wl_i64* counts;           // per cluster: how many those are
  wl_i64* names;            // per slot: memory for k candidates
  float* logs;
  wl_u64 seed;
  wl_i64 n, places, stride, head_size, shortlist, clusters, row, k;
  wl_i64 begin;             // the first place
  wl_i64 cluster;           // whose places they are
  wl_i64 cutoffs[WL_MAX_CLUSTERS];
};
static_assert(sizeof(DistributionArgs) == 424, "DistributionArgs: src/cuda/args/layers.rs");

// Elements between a tensor and the same elements line by line.
#define WL_MAX_DIMS 8
struct PermuteArgs {
  const void* from;
  void* to;
  wl_i64 elements;
  wl_i64 sizes[WL_MAX_DIMS];    // outermost first, in the order of the lines
  wl_i64 strides[WL_MAX_DIMS];  // the tensor's, in that order
  wl_u32 size;                  // bytes of an element: 2 or 4
  wl_u32 back;                  // 0: from the tensor to the lines, 1: back
};
static_assert(sizeof(PermuteArgs) == 160, "PermuteArgs: src/cuda/args.rs");
WL_OFFSET(PermuteArgs, size, 152, "PermuteArgs: src/cuda/args.rs");

// Tensors of an elementwise loss over the shape that they broadcast to. Pointers are null where
// there is no such tensor; the first eight are the operands, in the order of the strides.
#define WL_OPERANDS 8
struct ElementwiseArgs {
  const void* x;
  const void* y;
  const void* weight;
  const void* pos_weight;
  const void* upstream;     // one an element
  float* value;             // one an element
  void* grad_x;
  void* grad_y;
  const void* single;       // the upstream gradient where it is one number of a tensor
  double* weights;          // where the sum is divided by that of the weights: it, and what scales them both
  double* partials;         // sums of blocks, or of parts of sums
  float* loss;              // what the sum of all becomes
  double number;            // the upstream gradient, where there is no tensor
  double denominator;
  wl_i64 count;             // elements of the shape
  wl_i64 units;             // tiles of all lines
  wl_i64 tiles;             // tiles of a line
  wl_i64 outputs, terms;    // summing back: elements of the gradient, and what each is the sum of
  wl_i64 part;              // terms of a part, or packs of a tile
  wl_i64 sizes[WL_MAX_DIMS];  // outermost first; summing back: the kept dimensions first
  wl_i64 strides[WL_OPERANDS][WL_MAX_DIMS];
  float threshold, divisor;   // of Huber; the former also beta of Jensen-Shannon
  wl_u32 weight_kind, pos_weight_kind, upstream_kind;
  wl_u32 dims;              // at least 1
  wl_u32 kept;              // dimensions of the gradient that is summed back
  wl_u32 lead;              // the operand whose packs are aligned: 0 or 1
  wl_u32 parts;             // partial sums, of all or of each output
  wl_u32 lanes;             // threads that share a part: 1 or 32
  wl_u32 side;              // what is summed back: 0 the input's gradient, 1 the target's
  wl_u32 kind;              // element type of that gradient
};
static_assert(sizeof(ElementwiseArgs) == 784, "ElementwiseArgs: src/cuda/args.rs");
WL_OFFSET(ElementwiseArgs, sizes, 160, "ElementwiseArgs: src/cuda/args.rs");
WL_OFFSET(ElementwiseArgs, threshold, 736, "ElementwiseArgs: src/cuda/args.rs");
WL_OFFSET(ElementwiseArgs, kind, 780, "ElementwiseArgs: src/cuda/args.rs");
