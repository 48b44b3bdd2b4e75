// Made by `cargo run -p xtask -- table` of src/code/args.rs and its modules. Not to be edited.
// What a launch hands to a kernel: each struct as Rust has it. An address is null where there is no such
// tensor, or no use for it.
#pragma once
#include "core/intrinsics.cuh"

// Where a field lies. Checked by the emulator's build alone: NVRTC before 13.4 does not know offsetof.
#if !WL_EMULATED
#define WL_OFFSET(type, field, at) static_assert(true, "")
#else
#define WL_OFFSET(type, field, at) static_assert(__builtin_offsetof(type, field) == at, #type "." #field)
#endif

static_assert(sizeof(void*) == 8, "addresses");
#define WL_MAX_CLUSTERS 32
#define WL_MAX_DIMS 8
#define WL_OPERANDS 9

// Numbers of the batch, on the device.
struct Totals {
  double weight;        // Sum of the kept rows' weights.
  double class_weight;  // Sum of the weights of all classes.
  double kept;          // What divides a sum over kept rows that class weights have no part in: how many they are, or
                        // what those weigh.
  wl_i64 bad_row;       // The first row whose target or factor is wrong, or -1.
  wl_i64 bad_value;     // Its target.
  double per_weight;    // 1 / weight; NaN where that is 0.
  float per_row;        // 1 / kept.
  float weight_unit;    // A power of two: class weights times this add up within f32.
};
static_assert(sizeof(Totals) == 56, "Totals");
WL_OFFSET(Totals, weight, 0); WL_OFFSET(Totals, class_weight, 8); WL_OFFSET(Totals, kept, 16);
WL_OFFSET(Totals, bad_row, 24); WL_OFFSET(Totals, bad_value, 32); WL_OFFSET(Totals, per_weight, 40);
WL_OFFSET(Totals, per_row, 48); WL_OFFSET(Totals, weight_unit, 52);

// The device's memory of an error.
struct Status {
  wl_u64 kind;          // 0: none; else a kind of error, as the stream that reads it numbers them.
  wl_i64 index;
  wl_i64 value;         // The target, or the weight's bits.
  wl_i64 classes;
  wl_i64 ignore_index;
  wl_u32 ticket;        // Blocks of a census that are done; 0 between launches.
  wl_u32 pad;
};
static_assert(sizeof(Status) == 48, "Status");
WL_OFFSET(Status, kind, 0); WL_OFFSET(Status, index, 8); WL_OFFSET(Status, value, 16); WL_OFFSET(Status, classes, 24);
WL_OFFSET(Status, ignore_index, 32); WL_OFFSET(Status, ticket, 40); WL_OFFSET(Status, pad, 44);

// What rows' losses are to add up to, and where.
struct SumArgs {
  const void* loss;      // Per row, doubles where they are wide.
  const void* z_loss;    // Per row, or null.
  double* chunks;        // Two numbers a chunk.
  wl_u32* tickets;       // Rows of each chunk that are done, then the chunks that are; null where nothing is added up.
  const Totals* totals;
  float* loss_out;
  float* z_loss_out;     // Null where there is no z-loss.
  wl_i64 rows;
  wl_u32 wide;           // Rows' losses are doubles.
  wl_u32 mean;           // Divide by the totals.
};
static_assert(sizeof(SumArgs) == 72, "SumArgs");
WL_OFFSET(SumArgs, loss, 0); WL_OFFSET(SumArgs, z_loss, 8); WL_OFFSET(SumArgs, chunks, 16);
WL_OFFSET(SumArgs, tickets, 24); WL_OFFSET(SumArgs, totals, 32); WL_OFFSET(SumArgs, loss_out, 40);
WL_OFFSET(SumArgs, z_loss_out, 48); WL_OFFSET(SumArgs, rows, 56); WL_OFFSET(SumArgs, wide, 64);
WL_OFFSET(SumArgs, mean, 68);

// A part's states of rows, put into those of more blocks.
struct MergeArgs {
  const float* part;    // The part's numbers, a row's one after another.
  float* state;
  wl_i64 rows;
  wl_i64 part_numbers;  // Numbers of a row of the part, the target's included.
  wl_i64 numbers;       // Numbers of a row of the states.
  wl_i64 at;            // Where the part's blocks begin in a row of the states.
  wl_u32 of_target;     // Numbers of the target.
  wl_u32 is_first;      // The first part: nothing is known of targets yet.
};
static_assert(sizeof(MergeArgs) == 56, "MergeArgs");
WL_OFFSET(MergeArgs, part, 0); WL_OFFSET(MergeArgs, state, 8); WL_OFFSET(MergeArgs, rows, 16);
WL_OFFSET(MergeArgs, part_numbers, 24); WL_OFFSET(MergeArgs, numbers, 32); WL_OFFSET(MergeArgs, at, 40);
WL_OFFSET(MergeArgs, of_target, 48); WL_OFFSET(MergeArgs, is_first, 52);

// Targets, class weights and rows' losses.
struct BatchArgs {
  const void* target;        // Class indices; null where every row counts.
  const void* weight;
  const float* temperature;  // Of rows, or null: what divides their logits,
  const float* row_weight;   // and what multiplies their losses.
  double* chunks;            // Two numbers a chunk.
  wl_i64* bad;               // A chunk's first bad weight; of rows the first that is bad, with what is wrong in its low
                             // bits; or -1.
  Totals* totals;
  Status* status;
  wl_u32* tickets;           // One a chunk of rows, and one: zeroed.
  SumArgs sum;               // Of the losses of rows.
  wl_i64 rows;
  wl_i64 classes;
  wl_i64 ignore_index;
  wl_u32 target_kind;
  wl_u32 weight_kind;
  wl_u32 bad_target;         // The kind of error that a class out of range is.
  wl_u32 ignores;            // Rows of the class to be ignored do not count.
  wl_u32 by_rows;            // Rows count as 1 each, whatever their classes weigh.
  wl_u32 bad_temperature;    // The kind of error that a temperature out of range is.
};
static_assert(sizeof(BatchArgs) == 192, "BatchArgs");
WL_OFFSET(BatchArgs, target, 0); WL_OFFSET(BatchArgs, weight, 8); WL_OFFSET(BatchArgs, temperature, 16);
WL_OFFSET(BatchArgs, row_weight, 24); WL_OFFSET(BatchArgs, chunks, 32); WL_OFFSET(BatchArgs, bad, 40);
WL_OFFSET(BatchArgs, totals, 48); WL_OFFSET(BatchArgs, status, 56); WL_OFFSET(BatchArgs, tickets, 64);
WL_OFFSET(BatchArgs, sum, 72); WL_OFFSET(BatchArgs, rows, 144); WL_OFFSET(BatchArgs, classes, 152);
WL_OFFSET(BatchArgs, ignore_index, 160); WL_OFFSET(BatchArgs, target_kind, 168); WL_OFFSET(BatchArgs, weight_kind, 172);
WL_OFFSET(BatchArgs, bad_target, 176); WL_OFFSET(BatchArgs, ignores, 180); WL_OFFSET(BatchArgs, by_rows, 184);
WL_OFFSET(BatchArgs, bad_temperature, 188);

// Ranks of rows, and the limits that they are counted below.
struct RankArgs {
  const wl_i64* ranks;
  const wl_i64* limits;
  wl_i64* counts;        // One a limit.
  wl_i64 rows;
};
static_assert(sizeof(RankArgs) == 32, "RankArgs");
WL_OFFSET(RankArgs, ranks, 0); WL_OFFSET(RankArgs, limits, 8); WL_OFFSET(RankArgs, counts, 16);
WL_OFFSET(RankArgs, rows, 24);

// Elements between a tensor and the same elements line by line.
struct PermuteArgs {
  const void* from;
  void* to;
  wl_i64 elements;
  wl_i64 sizes[WL_MAX_DIMS];    // Sizes, outermost first, in the order of the lines; 1 where there are fewer
                                // dimensions.
  wl_i64 strides[WL_MAX_DIMS];  // The tensor's strides in that order.
  wl_u32 size;                  // Bytes of an element.
  wl_u32 back;                  // 0: from the tensor to the lines, 1: back.
};
static_assert(sizeof(PermuteArgs) == 160, "PermuteArgs");
WL_OFFSET(PermuteArgs, from, 0); WL_OFFSET(PermuteArgs, to, 8); WL_OFFSET(PermuteArgs, elements, 16);
WL_OFFSET(PermuteArgs, sizes, 24); WL_OFFSET(PermuteArgs, strides, 88); WL_OFFSET(PermuteArgs, size, 152);
WL_OFFSET(PermuteArgs, back, 156);

// Tensors of an elementwise loss, over the shape that they broadcast to: the first nine are the operands, in the order
// of the strides.
struct ElementwiseArgs {
  const void* x;
  const void* y;
  const void* weight;
  const void* third;                         // A third number an element: a weight of positive targets, or a variance.
  const void* upstream;                      // One an element.
  float* value;                              // One an element.
  void* grad_x;
  void* grad_y;
  void* grad_third;
  const void* single;                        // The upstream gradient where it is one number of a tensor.
  double* weights;                           // Where the sum is divided by that of the weights: it, and what scales
                                             // them both.
  double* partials;                          // Sums of blocks, or of parts of sums.
  float* loss;                               // What the sum of all becomes.
  const double* before;                      // Sums of threads over the parts before this one; none at the first.
  double* after;                             // The same, for the part after this one; none at the last.
  Status* status;                            // Where a third number below 0 is noted.
  double number;                             // The upstream gradient, where there is no tensor.
  double denominator;
  wl_i64 count;                              // Elements of the part; of the shape, where there is one.
  wl_i64 units;                              // Tiles of the part; of all lines, where there is one.
  wl_i64 first;                              // Tile, or element, that the part begins with.
  wl_i64 turn;                               // The thread that has it in a launch for all.
  wl_i64 tiles;                              // Tiles of a line.
  wl_i64 ends;                               // The tile of a line that its ends go with: the first, or -1 for none.
  wl_i64 outputs;                            // Summing back: elements of the gradient.
  wl_i64 terms;                              // Summing back: what each element is the sum of.
  wl_i64 part;                               // Terms of a part, or packs of a tile.
  wl_i64 sizes[WL_MAX_DIMS];                 // Outermost first; summing back: the kept dimensions first.
  wl_i64 strides[WL_OPERANDS][WL_MAX_DIMS];
  float options[2];                          // The functor's, as its row says.
  wl_u32 weight_kind;
  wl_u32 third_kind;
  wl_u32 upstream_kind;
  wl_u32 dims;                               // At least 1.
  wl_u32 kept;                               // Dimensions of the gradient that is summed back.
  wl_u32 lead;                               // The operand whose packs are aligned: 0 the input, 1 the target.
  wl_u32 parts;                              // Partial sums, of all or of each output.
  wl_u32 lanes;                              // Threads that share a part: 1 or 32.
  wl_u32 side;                               // What is summed back: 0 the input's gradient, 1 the target's, 2 the third
                                             // tensor's.
  wl_u32 kind;                               // Element type of that gradient.
};
static_assert(sizeof(ElementwiseArgs) == 904, "ElementwiseArgs");
WL_OFFSET(ElementwiseArgs, x, 0); WL_OFFSET(ElementwiseArgs, y, 8); WL_OFFSET(ElementwiseArgs, weight, 16);
WL_OFFSET(ElementwiseArgs, third, 24); WL_OFFSET(ElementwiseArgs, upstream, 32); WL_OFFSET(ElementwiseArgs, value, 40);
WL_OFFSET(ElementwiseArgs, grad_x, 48); WL_OFFSET(ElementwiseArgs, grad_y, 56);
WL_OFFSET(ElementwiseArgs, grad_third, 64); WL_OFFSET(ElementwiseArgs, single, 72);
WL_OFFSET(ElementwiseArgs, weights, 80); WL_OFFSET(ElementwiseArgs, partials, 88); WL_OFFSET(ElementwiseArgs, loss, 96);
WL_OFFSET(ElementwiseArgs, before, 104); WL_OFFSET(ElementwiseArgs, after, 112);
WL_OFFSET(ElementwiseArgs, status, 120); WL_OFFSET(ElementwiseArgs, number, 128);
WL_OFFSET(ElementwiseArgs, denominator, 136); WL_OFFSET(ElementwiseArgs, count, 144);
WL_OFFSET(ElementwiseArgs, units, 152); WL_OFFSET(ElementwiseArgs, first, 160); WL_OFFSET(ElementwiseArgs, turn, 168);
WL_OFFSET(ElementwiseArgs, tiles, 176); WL_OFFSET(ElementwiseArgs, ends, 184); WL_OFFSET(ElementwiseArgs, outputs, 192);
WL_OFFSET(ElementwiseArgs, terms, 200); WL_OFFSET(ElementwiseArgs, part, 208); WL_OFFSET(ElementwiseArgs, sizes, 216);
WL_OFFSET(ElementwiseArgs, strides, 280); WL_OFFSET(ElementwiseArgs, options, 856);
WL_OFFSET(ElementwiseArgs, weight_kind, 864); WL_OFFSET(ElementwiseArgs, third_kind, 868);
WL_OFFSET(ElementwiseArgs, upstream_kind, 872); WL_OFFSET(ElementwiseArgs, dims, 876);
WL_OFFSET(ElementwiseArgs, kept, 880); WL_OFFSET(ElementwiseArgs, lead, 884); WL_OFFSET(ElementwiseArgs, parts, 888);
WL_OFFSET(ElementwiseArgs, lanes, 892); WL_OFFSET(ElementwiseArgs, side, 896); WL_OFFSET(ElementwiseArgs, kind, 900);

// The rows of a layer by cluster. A cluster has as many slots as its capacity.
struct BinArgs {
  const void* target;                  // Class indices.
  const void* weight;                  // Row weights, or null.
  const void* upstream;                // Gradient of the loss: one number, or one a row, or null.
  const wl_u32* places;                // Of a class its place by frequency, or null.
  wl_i64* column;                      // Per row: the head's column, or -1 where the row does not count.
  wl_i64* local;                       // Per row: the class, counted from its cluster's first.
  wl_i64* cluster;                     // Per row: its cluster, or one of WL_ROW_*.
  wl_i64* rows;                        // Per slot: the row.
  wl_i64* locals;                      // Per slot: its class in the cluster, or -1: nothing is there.
  float* factor;                       // Per row: the gradient of minus its log-probability.
  float* factors;                      // Per slot: the same.
  wl_i64* counts;                      // Per cluster: its rows, those beyond its capacity as well.
  Totals* totals;
  Status* status;
  float* nll;                          // Per row: minus the log-probability.
  float* output;                       // Per row.
  float* loss;                         // Per row, or one.
  wl_i64 n;
  wl_i64 classes;
  wl_i64 ignore_index;
  wl_i64 clusters;
  wl_i64 shortlist;                    // The first cluster's column of the head; where there is no such, so low that
                                       // every cluster's is below 0.
  wl_i64 cutoffs[WL_MAX_CLUSTERS];
  wl_i64 begins[WL_MAX_CLUSTERS + 1];  // First slot of each cluster, and the end of the last.
  float number;                        // The upstream gradient, where `upstream` is null.
  wl_u32 target_kind;
  wl_u32 weight_kind;
  wl_u32 upstream_kind;
  wl_u32 upstream_rows;                // 1: one a row.
  wl_u32 ignores;                      // Whether there is an ignore_index.
  wl_u32 mean;                         // Divide by the weights.
  wl_u32 whole;                        // A loss a row.
  wl_u32 bad_target;                   // The kind of error that a target out of range is.
  wl_u32 pad;
};
static_assert(sizeof(BinArgs) == 736, "BinArgs");
WL_OFFSET(BinArgs, target, 0); WL_OFFSET(BinArgs, weight, 8); WL_OFFSET(BinArgs, upstream, 16);
WL_OFFSET(BinArgs, places, 24); WL_OFFSET(BinArgs, column, 32); WL_OFFSET(BinArgs, local, 40);
WL_OFFSET(BinArgs, cluster, 48); WL_OFFSET(BinArgs, rows, 56); WL_OFFSET(BinArgs, locals, 64);
WL_OFFSET(BinArgs, factor, 72); WL_OFFSET(BinArgs, factors, 80); WL_OFFSET(BinArgs, counts, 88);
WL_OFFSET(BinArgs, totals, 96); WL_OFFSET(BinArgs, status, 104); WL_OFFSET(BinArgs, nll, 112);
WL_OFFSET(BinArgs, output, 120); WL_OFFSET(BinArgs, loss, 128); WL_OFFSET(BinArgs, n, 136);
WL_OFFSET(BinArgs, classes, 144); WL_OFFSET(BinArgs, ignore_index, 152); WL_OFFSET(BinArgs, clusters, 160);
WL_OFFSET(BinArgs, shortlist, 168); WL_OFFSET(BinArgs, cutoffs, 176); WL_OFFSET(BinArgs, begins, 432);
WL_OFFSET(BinArgs, number, 696); WL_OFFSET(BinArgs, target_kind, 700); WL_OFFSET(BinArgs, weight_kind, 704);
WL_OFFSET(BinArgs, upstream_kind, 708); WL_OFFSET(BinArgs, upstream_rows, 712); WL_OFFSET(BinArgs, ignores, 716);
WL_OFFSET(BinArgs, mean, 720); WL_OFFSET(BinArgs, whole, 724); WL_OFFSET(BinArgs, bad_target, 728);
WL_OFFSET(BinArgs, pad, 732);

// Rows of log-probabilities of classes, by their place.
struct DistributionArgs {
  float* log_prob;                  // `[n, places]`, `stride` elements between rows.
  const float* head;                // Log-probabilities of the head's columns, `[.., head_size]`.
  const wl_u32* classes;            // Of a place its class, or null.
  wl_i64* picked;                   // `[.., k]`, from row `row` on.
  float* values;                    // The same, or null: drawn; renamed: `[n, ..]`, `k` elements between rows.
  const wl_i64* rows;               // Per slot of a cluster: the row, or -1; null: the head's, as they stand.
  wl_i64* needed;                   // `[clusters, n]`: the rows that need each.
  wl_i64* counts;                   // Per cluster: how many those are.
  wl_i64* names;                    // Per slot: memory for k candidates.
  float* logs;
  wl_u64 seed;
  wl_i64 n;
  wl_i64 places;
  wl_i64 stride;
  wl_i64 head_stride;               // Elements between rows of `head`.
  wl_i64 shortlist;
  wl_i64 clusters;
  wl_i64 row;
  wl_i64 k;
  wl_i64 begin;                     // The first place.
  wl_i64 cluster;                   // Whose places they are.
  wl_i64 cutoffs[WL_MAX_CLUSTERS];
};
static_assert(sizeof(DistributionArgs) == 424, "DistributionArgs");
WL_OFFSET(DistributionArgs, log_prob, 0); WL_OFFSET(DistributionArgs, head, 8);
WL_OFFSET(DistributionArgs, classes, 16); WL_OFFSET(DistributionArgs, picked, 24);
WL_OFFSET(DistributionArgs, values, 32); WL_OFFSET(DistributionArgs, rows, 40); WL_OFFSET(DistributionArgs, needed, 48);
WL_OFFSET(DistributionArgs, counts, 56); WL_OFFSET(DistributionArgs, names, 64); WL_OFFSET(DistributionArgs, logs, 72);
WL_OFFSET(DistributionArgs, seed, 80); WL_OFFSET(DistributionArgs, n, 88); WL_OFFSET(DistributionArgs, places, 96);
WL_OFFSET(DistributionArgs, stride, 104); WL_OFFSET(DistributionArgs, head_stride, 112);
WL_OFFSET(DistributionArgs, shortlist, 120); WL_OFFSET(DistributionArgs, clusters, 128);
WL_OFFSET(DistributionArgs, row, 136); WL_OFFSET(DistributionArgs, k, 144); WL_OFFSET(DistributionArgs, begin, 152);
WL_OFFSET(DistributionArgs, cluster, 160); WL_OFFSET(DistributionArgs, cutoffs, 168);

// Rows of an adaptive embedding's index.
struct EmbeddingArgs {
  BinArgs bins;
  wl_i64* places;  // Per row: its class by frequency, or -1.
  wl_i64* slots;   // Per row of a cluster: its slot there.
};
static_assert(sizeof(EmbeddingArgs) == 752, "EmbeddingArgs");
WL_OFFSET(EmbeddingArgs, bins, 0); WL_OFFSET(EmbeddingArgs, places, 736); WL_OFFSET(EmbeddingArgs, slots, 744);

// Rows against their targets and sampled classes. Weights, bias, input and gradient are of one kind.
struct SampledArgs {
  wl_i64* column;               // Per row: its target, or -1 where the row does not count.
  wl_i64* cluster;              // Per row: as of BinArgs.
  wl_i64* marks;                // Per row: the target's column of its logits, or -1.
  float* target_offsets;        // Per row: b - ln E of the target.
  float* offsets;               // Per negative: b - ln E.
  const wl_i64* drawn;          // The negatives.
  const double* probabilities;  // Of each class, or null: log-uniform.
  const void* weight;           // `[classes, features]`.
  const void* bias;             // `[classes]`, or null.
  const void* x;                // `[n, features]`.
  float* z;                     // `[n, samples + 1]`, the target's logit last.
  const float* products;        // `[n, features]`: the gradient's part of the negatives.
  void* grad;                   // `[n, features]`: the gradient of the input.
  double tries;                 // Draws of distinct negatives; 0: they may repeat.
  wl_i64 n;
  wl_i64 samples;
  wl_i64 classes;
  wl_i64 features;
  wl_i64 weight_stride;         // Elements between rows.
  wl_i64 x_stride;              // Elements between rows.
  wl_i64 z_stride;              // Elements between rows.
  wl_i64 products_stride;       // Elements between rows.
  wl_i64 grad_stride;           // Elements between rows.
  wl_u32 kind;
  wl_u32 keep_hits;             // Negatives that are the row's target count.
};
static_assert(sizeof(SampledArgs) == 192, "SampledArgs");
WL_OFFSET(SampledArgs, column, 0); WL_OFFSET(SampledArgs, cluster, 8); WL_OFFSET(SampledArgs, marks, 16);
WL_OFFSET(SampledArgs, target_offsets, 24); WL_OFFSET(SampledArgs, offsets, 32); WL_OFFSET(SampledArgs, drawn, 40);
WL_OFFSET(SampledArgs, probabilities, 48); WL_OFFSET(SampledArgs, weight, 56); WL_OFFSET(SampledArgs, bias, 64);
WL_OFFSET(SampledArgs, x, 72); WL_OFFSET(SampledArgs, z, 80); WL_OFFSET(SampledArgs, products, 88);
WL_OFFSET(SampledArgs, grad, 96); WL_OFFSET(SampledArgs, tries, 104); WL_OFFSET(SampledArgs, n, 112);
WL_OFFSET(SampledArgs, samples, 120); WL_OFFSET(SampledArgs, classes, 128); WL_OFFSET(SampledArgs, features, 136);
WL_OFFSET(SampledArgs, weight_stride, 144); WL_OFFSET(SampledArgs, x_stride, 152);
WL_OFFSET(SampledArgs, z_stride, 160); WL_OFFSET(SampledArgs, products_stride, 168);
WL_OFFSET(SampledArgs, grad_stride, 176); WL_OFFSET(SampledArgs, kind, 184); WL_OFFSET(SampledArgs, keep_hits, 188);

// Parts that are sorted by class, eight bits of it a pass.
struct SortArgs {
  const wl_i64* first;   // The classes of parts 0 to `split`; below 0: none.
  const wl_i64* second;  // Those of the others.
  const wl_i64* keys;    // Per place: classes as sorted so far, and the parts.
  const wl_i64* parts;
  wl_i64* to_keys;       // The same after this pass.
  wl_i64* to_parts;
  wl_u32* counts;        // `[256, tiles]`.
  wl_i64 n;
  wl_i64 split;
  wl_i64 classes;
  wl_i64 tiles;
  wl_u32 shift;
  wl_u32 pad;
};
static_assert(sizeof(SortArgs) == 96, "SortArgs");
WL_OFFSET(SortArgs, first, 0); WL_OFFSET(SortArgs, second, 8); WL_OFFSET(SortArgs, keys, 16);
WL_OFFSET(SortArgs, parts, 24); WL_OFFSET(SortArgs, to_keys, 32); WL_OFFSET(SortArgs, to_parts, 40);
WL_OFFSET(SortArgs, counts, 48); WL_OFFSET(SortArgs, n, 56); WL_OFFSET(SortArgs, split, 64);
WL_OFFSET(SortArgs, classes, 72); WL_OFFSET(SortArgs, tiles, 80); WL_OFFSET(SortArgs, shift, 88);
WL_OFFSET(SortArgs, pad, 92);

// Rows of parts, added up by class. Parts before `split` have rows of `whole`, as they are; part `split + i` has row
// `slots[i] - from` of `rest` times `factors[i]`, if that slot is from `from` to `to_slot`.
struct SegmentArgs {
  const wl_i64* keys;    // Per place, sorted.
  const wl_i64* parts;
  const void* whole;
  const void* rest;      // Or null: ones.
  const wl_i64* slots;   // Or null: as they stand.
  const float* factors;  // Or null: ones.
  void* to;              // A row a class, from `begin` to `end`.
  wl_i64 n;
  wl_i64 split;
  wl_i64 from;
  wl_i64 to_slot;
  wl_i64 begin;
  wl_i64 end;
  wl_i64 columns;
  wl_i64 whole_stride;   // Elements between rows.
  wl_i64 rest_stride;    // Elements between rows.
  wl_i64 to_stride;      // Elements between rows.
  wl_u32 whole_kind;
  wl_u32 rest_kind;
  wl_u32 to_kind;
  wl_u32 pad;
};
static_assert(sizeof(SegmentArgs) == 152, "SegmentArgs");
WL_OFFSET(SegmentArgs, keys, 0); WL_OFFSET(SegmentArgs, parts, 8); WL_OFFSET(SegmentArgs, whole, 16);
WL_OFFSET(SegmentArgs, rest, 24); WL_OFFSET(SegmentArgs, slots, 32); WL_OFFSET(SegmentArgs, factors, 40);
WL_OFFSET(SegmentArgs, to, 48); WL_OFFSET(SegmentArgs, n, 56); WL_OFFSET(SegmentArgs, split, 64);
WL_OFFSET(SegmentArgs, from, 72); WL_OFFSET(SegmentArgs, to_slot, 80); WL_OFFSET(SegmentArgs, begin, 88);
WL_OFFSET(SegmentArgs, end, 96); WL_OFFSET(SegmentArgs, columns, 104); WL_OFFSET(SegmentArgs, whole_stride, 112);
WL_OFFSET(SegmentArgs, rest_stride, 120); WL_OFFSET(SegmentArgs, to_stride, 128);
WL_OFFSET(SegmentArgs, whole_kind, 136); WL_OFFSET(SegmentArgs, rest_kind, 140); WL_OFFSET(SegmentArgs, to_kind, 144);
WL_OFFSET(SegmentArgs, pad, 148);

// Rows that a schedule goes through.
struct RowOperands {
  const void* x;        // Rows of logits.
  void* y;              // Rows written: the gradient, or log-probabilities.
  wl_i64 count;
  wl_i64 classes;
  wl_i64 x_stride;      // Elements between rows.
  wl_i64 y_stride;      // Elements between rows.
  wl_i64 side_by_side;  // Rows that lie side by side, element by element; strides are then those between such groups of
                        // rows. 0: a row lies in one piece.
  wl_i64 x_step;        // Elements between those of a row that lies side by side with others: of x, of y, and of what
                        // lies beside x.
  wl_i64 y_step;
  wl_i64 beside_step;
};
static_assert(sizeof(RowOperands) == 80, "RowOperands");
WL_OFFSET(RowOperands, x, 0); WL_OFFSET(RowOperands, y, 8); WL_OFFSET(RowOperands, count, 16);
WL_OFFSET(RowOperands, classes, 24); WL_OFFSET(RowOperands, x_stride, 32); WL_OFFSET(RowOperands, y_stride, 40);
WL_OFFSET(RowOperands, side_by_side, 48); WL_OFFSET(RowOperands, x_step, 56); WL_OFFSET(RowOperands, y_step, 64);
WL_OFFSET(RowOperands, beside_step, 72);

// What a schedule hands from launch to launch.
struct RowSchedule {
  float* partials;    // Split rows: a State a part, then a float a part.
  float* row_target;  // Split rows: the target's x, saved before a gradient overwrites it.
  wl_u32 parts;       // Split rows: blocks a row.
  wl_u32 slice;       // Packs of a block; of rows side by side: threads of a row.
  wl_u32* turns;      // Split rows in one launch: turns taken so far, then how many parts of each row are summed; all 0
                      // before.
  wl_u32 lead;        // Of which so many parts are summed before the first is written.
  wl_u32 coarse;      // Split sums: only rows whose saved lse is too coarse.
  SumArgs sum;        // Of the rows' losses.
};
static_assert(sizeof(RowSchedule) == 112, "RowSchedule");
WL_OFFSET(RowSchedule, partials, 0); WL_OFFSET(RowSchedule, row_target, 8); WL_OFFSET(RowSchedule, parts, 16);
WL_OFFSET(RowSchedule, slice, 20); WL_OFFSET(RowSchedule, turns, 24); WL_OFFSET(RowSchedule, lead, 32);
WL_OFFSET(RowSchedule, coarse, 36); WL_OFFSET(RowSchedule, sum, 40);

// Gradient of a result: one number, one a row, or one an element.
struct UpstreamArgs {
  const void* values;
  wl_i64 stride;       // Elements between rows; 0: all have the same one.
  wl_u32 kind;
  float number;        // Where `values` is null.
};
static_assert(sizeof(UpstreamArgs) == 24, "UpstreamArgs");
WL_OFFSET(UpstreamArgs, values, 0); WL_OFFSET(UpstreamArgs, stride, 8); WL_OFFSET(UpstreamArgs, kind, 16);
WL_OFFSET(UpstreamArgs, number, 20);

// Logit scale and soft-cap: src/spec/soft_cap.rs.
struct LogitArgs {
  float scale;             // `z = scale * x`, before a cap.
  float cap;               // 0: none.
  float cap_first;
  float cap_rate;
  float cap_line;
  float cap_near;          // Up to this size of s·x/c a vector of logits is near 0 (`WL_CAP_NEAR`); below 0: none is,
                           // as `cap_first` is not 1.
  wl_u32 cap_approximate;  // tanh is the special-function unit's.
  wl_u32 pad;
};
static_assert(sizeof(LogitArgs) == 32, "LogitArgs");
WL_OFFSET(LogitArgs, scale, 0); WL_OFFSET(LogitArgs, cap, 4); WL_OFFSET(LogitArgs, cap_first, 8);
WL_OFFSET(LogitArgs, cap_rate, 12); WL_OFFSET(LogitArgs, cap_line, 16); WL_OFFSET(LogitArgs, cap_near, 20);
WL_OFFSET(LogitArgs, cap_approximate, 24); WL_OFFSET(LogitArgs, pad, 28);

// A class a row.
struct LabelArgs {
  const void* values;
  wl_i64 ignore_index;  // The class of rows that do not count.
  wl_u32 kind;
  wl_u32 pad;
};
static_assert(sizeof(LabelArgs) == 24, "LabelArgs");
WL_OFFSET(LabelArgs, values, 0); WL_OFFSET(LabelArgs, ignore_index, 8); WL_OFFSET(LabelArgs, kind, 16);
WL_OFFSET(LabelArgs, pad, 20);

// A weight a class, or null: 1.
struct WeightArgs {
  const void* values;
  wl_u32 kind;         // f32's, or the logits'.
  wl_u32 pad;
};
static_assert(sizeof(WeightArgs) == 16, "WeightArgs");
WL_OFFSET(WeightArgs, values, 0); WL_OFFSET(WeightArgs, kind, 8); WL_OFFSET(WeightArgs, pad, 12);

// Label smoothing, z-loss and reduction.
struct SmoothingArgs {
  const Totals* totals;
  double lambda;         // What the z-loss is multiplied by.
  float hard;            // `1 - epsilon`.
  float soft;            // `epsilon / classes`.
  wl_u32 mean;           // Divide by the totals.
  wl_u32 pad;
};
static_assert(sizeof(SmoothingArgs) == 32, "SmoothingArgs");
WL_OFFSET(SmoothingArgs, totals, 0); WL_OFFSET(SmoothingArgs, lambda, 8); WL_OFFSET(SmoothingArgs, hard, 16);
WL_OFFSET(SmoothingArgs, soft, 20); WL_OFFSET(SmoothingArgs, mean, 24); WL_OFFSET(SmoothingArgs, pad, 28);

// What a row's loss is written to.
struct LossOutputs {
  float* loss;    // Doubles where they are wide.
  float* z_loss;  // The same.
  float* lse;     // Written forward, read backward.
  wl_u32 wide;    // Losses are doubles.
  wl_u32 whole;   // Losses include the z-loss.
};
static_assert(sizeof(LossOutputs) == 32, "LossOutputs");
WL_OFFSET(LossOutputs, loss, 0); WL_OFFSET(LossOutputs, z_loss, 8); WL_OFFSET(LossOutputs, lse, 16);
WL_OFFSET(LossOutputs, wide, 24); WL_OFFSET(LossOutputs, whole, 28);

// How a row's target stands among the classes.
struct RankOutputs {
  wl_i64* argmax;  // The class that beats all others.
  wl_i64* rank;    // How many classes beat the target.
};
static_assert(sizeof(RankOutputs) == 16, "RankOutputs");
WL_OFFSET(RankOutputs, argmax, 0); WL_OFFSET(RankOutputs, rank, 8);

// What else is asked for of a row beside its loss: log-probability and entropy, their gradients, and the likeliest
// classes.
struct TokenArgs {
  UpstreamArgs of_logprob;
  UpstreamArgs of_entropy;
  float* logprob;
  float* entropy;
  wl_i64* top_classes;      // `k` a row.
  float* top_logprob;       // The same.
  wl_u32 k;
  wl_u32 pad;
};
static_assert(sizeof(TokenArgs) == 88, "TokenArgs");
WL_OFFSET(TokenArgs, of_logprob, 0); WL_OFFSET(TokenArgs, of_entropy, 24); WL_OFFSET(TokenArgs, logprob, 48);
WL_OFFSET(TokenArgs, entropy, 56); WL_OFFSET(TokenArgs, top_classes, 64); WL_OFFSET(TokenArgs, top_logprob, 72);
WL_OFFSET(TokenArgs, k, 80); WL_OFFSET(TokenArgs, pad, 84);

// The classes that x and y hold of a vocabulary, and the state of each row: src/spec/row_state.rs.
struct ShardArgs {
  float* state;    // Numbers of states, a row's one after another; written, or read.
  wl_i64 first;    // The class that column 0 of x and y is.
  wl_i64 len;      // Columns of x and y.
  wl_i64 block;    // Classes of a block, a multiple of 64.
  wl_u32 blocks;   // Blocks of x and y.
  wl_u32 listed;   // Blocks of the states.
  wl_u32 fields;   // Numbers of a block.
  wl_u32 numbers;  // Numbers of a row.
};
static_assert(sizeof(ShardArgs) == 48, "ShardArgs");
WL_OFFSET(ShardArgs, state, 0); WL_OFFSET(ShardArgs, first, 8); WL_OFFSET(ShardArgs, len, 16);
WL_OFFSET(ShardArgs, block, 24); WL_OFFSET(ShardArgs, blocks, 32); WL_OFFSET(ShardArgs, listed, 36);
WL_OFFSET(ShardArgs, fields, 40); WL_OFFSET(ShardArgs, numbers, 44);

// Cross entropy with class indices.
struct CrossEntropyArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;
  LogitArgs logits;
  LabelArgs target;
  WeightArgs weight;
  SmoothingArgs options;
  LossOutputs out;
  RankOutputs ranks;
  TokenArgs tokens;
  ShardArgs shard;        // Of calls on shards.
  const float* bias;      // What logits that are products still lack, one a class.
};
static_assert(sizeof(CrossEntropyArgs) == 512, "CrossEntropyArgs");
WL_OFFSET(CrossEntropyArgs, rows, 0); WL_OFFSET(CrossEntropyArgs, schedule, 80);
WL_OFFSET(CrossEntropyArgs, upstream, 192); WL_OFFSET(CrossEntropyArgs, logits, 216);
WL_OFFSET(CrossEntropyArgs, target, 248); WL_OFFSET(CrossEntropyArgs, weight, 272);
WL_OFFSET(CrossEntropyArgs, options, 288); WL_OFFSET(CrossEntropyArgs, out, 320);
WL_OFFSET(CrossEntropyArgs, ranks, 352); WL_OFFSET(CrossEntropyArgs, tokens, 368);
WL_OFFSET(CrossEntropyArgs, shard, 456); WL_OFFSET(CrossEntropyArgs, bias, 504);

// Rows whose logits are products of at most 64 features: f32 hidden rows against weights of 16 bits.
struct TileArgs {
  CrossEntropyArgs row;  // The rows and the loss's options; x and y stand unused.
  const void* hidden;    // `[rows, width]`, f32.
  const void* weight;    // `[classes, width]`.
  const wl_i64* count;   // Rows that there are, of which these hold those from `from` on; null: all.
  float* partials;       // `[splits, rows, words of a state and one]` or `[splits, rows, width]`.
  float* slopes;         // Per row: what its gradient is made of, and behind all of them its class (i64) and one, 0
                         // where it does not count; null: there is no backward pass.
  void* to;              // The gradient of hidden rows or of weights.
  wl_i64 width;
  wl_i64 from;
  wl_i64 hidden_stride;  // Elements between rows.
  wl_i64 weight_stride;  // Elements between rows.
  wl_i64 to_stride;      // Elements between rows.
  wl_i64 splits;         // Parts of the classes.
  wl_u32 to_kind;
  wl_u32 add;            // To what is there.
};
static_assert(sizeof(TileArgs) == 616, "TileArgs");
WL_OFFSET(TileArgs, row, 0); WL_OFFSET(TileArgs, hidden, 512); WL_OFFSET(TileArgs, weight, 520);
WL_OFFSET(TileArgs, count, 528); WL_OFFSET(TileArgs, partials, 536); WL_OFFSET(TileArgs, slopes, 544);
WL_OFFSET(TileArgs, to, 552); WL_OFFSET(TileArgs, width, 560); WL_OFFSET(TileArgs, from, 568);
WL_OFFSET(TileArgs, hidden_stride, 576); WL_OFFSET(TileArgs, weight_stride, 584); WL_OFFSET(TileArgs, to_stride, 592);
WL_OFFSET(TileArgs, splits, 600); WL_OFFSET(TileArgs, to_kind, 608); WL_OFFSET(TileArgs, add, 612);

// Rows of a matrix from and to other places.
struct PanelArgs {
  const void* from;     // Or null: zeros.
  void* to;
  const wl_i64* rows;   // Where a row is, or goes; null: where it stands.
  const wl_i64* marks;  // Below 0: the row holds nothing; null: all do.
  wl_i64 n;
  wl_i64 columns;
  wl_i64 from_stride;
  wl_i64 to_stride;
  wl_u32 from_kind;
  wl_u32 to_kind;
  wl_u32 add;           // To what is there.
  wl_u32 parts;         // Which bf16 part stands where (panel_parts): a digit of 2 bits each.
  void* rest;           // What rounding left (panel_compensate), of `to`'s kind; or what rows were multiplied by
                        // (panel_halves), f32.
  wl_i64 rest_stride;
};
static_assert(sizeof(PanelArgs) == 96, "PanelArgs");
WL_OFFSET(PanelArgs, from, 0); WL_OFFSET(PanelArgs, to, 8); WL_OFFSET(PanelArgs, rows, 16);
WL_OFFSET(PanelArgs, marks, 24); WL_OFFSET(PanelArgs, n, 32); WL_OFFSET(PanelArgs, columns, 40);
WL_OFFSET(PanelArgs, from_stride, 48); WL_OFFSET(PanelArgs, to_stride, 56); WL_OFFSET(PanelArgs, from_kind, 64);
WL_OFFSET(PanelArgs, to_kind, 68); WL_OFFSET(PanelArgs, add, 72); WL_OFFSET(PanelArgs, parts, 76);
WL_OFFSET(PanelArgs, rest, 80); WL_OFFSET(PanelArgs, rest_stride, 88);

// Rows whose logits are products of any number of features; hidden rows and weights are of one type of 16 bits.
struct LinearTileArgs {
  CrossEntropyArgs row;      // The rows and the loss's options; x and y stand unused.
  const void* hidden;        // `[rows, width]`.
  const void* weight;        // `[classes, weight_width]`; where hidden rows are wider, they are parts side by side,
                             // each of the next multiple of 8 features, which meet the same weights.
  const float* temperature;  // What divides a row's logits, or null.
  const wl_i64* slot_rows;   // Rows that count come first, in their order: a slot's row,
  const wl_i64* slot_marks;  // and its class, or -1 where it does not count.
  float* partials;           // `[splits, slots, words of a state]`.
  float* targets;            // Per slot that counts: its target's logit.
  float* slopes;             // Per slot: what its gradient is made of; null: there is no backward pass.
  float* limits;             // Per slot: what pieces of 64 classes must reach to have a gradient (`LinearLimits`);
                             // null: nothing.
  wl_u32* flags;             // Per tile of 128 slots and 256 classes of the slab: which pieces have a gradient; null:
                             // all do.
  void* gradient;            // The gradient of the logits, `[slots, end - begin]`, bf16; an even number of elements
                             // between rows, the first of which is at a multiple of 4 bytes.
  void* gradient_rest;       // What that lacks of f32, laid out like it, or null: nobody asks.
  wl_i64 width;
  wl_i64 weight_width;
  wl_i64 hidden_stride;      // Elements between rows.
  wl_i64 weight_stride;      // Elements between rows.
  wl_i64 gradient_stride;    // Elements between rows.
  wl_i64 begin;              // Classes that are gone through, from `begin` to `end`, in so many parts.
  wl_i64 end;
  wl_i64 splits;
  float bound;               // Of `limits`.
  wl_u32 pad;
};
static_assert(sizeof(LinearTileArgs) == 680, "LinearTileArgs");
WL_OFFSET(LinearTileArgs, row, 0); WL_OFFSET(LinearTileArgs, hidden, 512); WL_OFFSET(LinearTileArgs, weight, 520);
WL_OFFSET(LinearTileArgs, temperature, 528); WL_OFFSET(LinearTileArgs, slot_rows, 536);
WL_OFFSET(LinearTileArgs, slot_marks, 544); WL_OFFSET(LinearTileArgs, partials, 552);
WL_OFFSET(LinearTileArgs, targets, 560); WL_OFFSET(LinearTileArgs, slopes, 568); WL_OFFSET(LinearTileArgs, limits, 576);
WL_OFFSET(LinearTileArgs, flags, 584); WL_OFFSET(LinearTileArgs, gradient, 592);
WL_OFFSET(LinearTileArgs, gradient_rest, 600); WL_OFFSET(LinearTileArgs, width, 608);
WL_OFFSET(LinearTileArgs, weight_width, 616); WL_OFFSET(LinearTileArgs, hidden_stride, 624);
WL_OFFSET(LinearTileArgs, weight_stride, 632); WL_OFFSET(LinearTileArgs, gradient_stride, 640);
WL_OFFSET(LinearTileArgs, begin, 648); WL_OFFSET(LinearTileArgs, end, 656); WL_OFFSET(LinearTileArgs, splits, 664);
WL_OFFSET(LinearTileArgs, bound, 672); WL_OFFSET(LinearTileArgs, pad, 676);

// Rows of logits that are products, and what they have beside them.
struct LinearRowsArgs {
  const void* target;        // Class indices; null where every row counts.
  const float* temperature;  // What divides a row's logits, or null.
  const float* row_weight;   // What multiplies a row's loss, or null.
  wl_i64* marks;             // Per row: its class, or -1 where it does not count.
  wl_i64* slot_rows;         // The rows that count, in their order, and then the others,
  wl_i64* slot_marks;        // and the marks of these.
  wl_i64* count;             // How many count.
  UpstreamArgs of_loss;
  UpstreamArgs of_logprob;
  UpstreamArgs of_entropy;
  float* given_loss;         // The same, a row each; null: nobody reads it.
  float* given_logprob;
  float* given_entropy;
  float* z;                  // Rows that are divided.
  void* loss;                // Rows' losses, doubles where they are wide.
  void* z_loss;              // The same, or null.
  const void* from;          // What slots have one of each, and rows are to have; words.
  void* to;
  wl_i64 n;
  wl_i64 classes;
  wl_i64 positions;          // Class indices of a row.
  wl_i64 ignore_index;
  wl_i64 columns;            // Of z, or words of what slots have.
  wl_i64 stride;             // Elements between rows of z.
  wl_u32 target_kind;
  wl_u32 wide;
  wl_u32 over_temperature;   // Upstream gradients are divided as logits are.
  wl_u32 missing;            // Words of a row that does not count.
};
static_assert(sizeof(LinearRowsArgs) == 256, "LinearRowsArgs");
WL_OFFSET(LinearRowsArgs, target, 0); WL_OFFSET(LinearRowsArgs, temperature, 8);
WL_OFFSET(LinearRowsArgs, row_weight, 16); WL_OFFSET(LinearRowsArgs, marks, 24);
WL_OFFSET(LinearRowsArgs, slot_rows, 32); WL_OFFSET(LinearRowsArgs, slot_marks, 40);
WL_OFFSET(LinearRowsArgs, count, 48); WL_OFFSET(LinearRowsArgs, of_loss, 56); WL_OFFSET(LinearRowsArgs, of_logprob, 80);
WL_OFFSET(LinearRowsArgs, of_entropy, 104); WL_OFFSET(LinearRowsArgs, given_loss, 128);
WL_OFFSET(LinearRowsArgs, given_logprob, 136); WL_OFFSET(LinearRowsArgs, given_entropy, 144);
WL_OFFSET(LinearRowsArgs, z, 152); WL_OFFSET(LinearRowsArgs, loss, 160); WL_OFFSET(LinearRowsArgs, z_loss, 168);
WL_OFFSET(LinearRowsArgs, from, 176); WL_OFFSET(LinearRowsArgs, to, 184); WL_OFFSET(LinearRowsArgs, n, 192);
WL_OFFSET(LinearRowsArgs, classes, 200); WL_OFFSET(LinearRowsArgs, positions, 208);
WL_OFFSET(LinearRowsArgs, ignore_index, 216); WL_OFFSET(LinearRowsArgs, columns, 224);
WL_OFFSET(LinearRowsArgs, stride, 232); WL_OFFSET(LinearRowsArgs, target_kind, 240);
WL_OFFSET(LinearRowsArgs, wide, 244); WL_OFFSET(LinearRowsArgs, over_temperature, 248);
WL_OFFSET(LinearRowsArgs, missing, 252);

// Products of a matrix of which pieces are zeros, `[m, k]` or turned `[k, m]`, with one `[k, n]`; each of bf16 parts.
struct BlockSparseArgs {
  const void* a;
  const void* a_rest;   // The second part, or null.
  const void* b;
  const void* b_rest;   // The second part, or null.
  const wl_u32* flags;  // Per tile of 128 by 256 of a: a bit for each 32 rows and 64 columns, 0 where zeros are.
  void* c;              // `[m, n]`.
  wl_i64 m;
  wl_i64 n;
  wl_i64 k;
  wl_i64 a_stride;      // Elements between rows.
  wl_i64 b_stride;      // Elements between rows.
  wl_i64 c_stride;      // Elements between rows.
  wl_i64 tiles;         // Of a row of tiles.
  wl_u32 add;           // To what is there.
  wl_u32 pad;
};
static_assert(sizeof(BlockSparseArgs) == 112, "BlockSparseArgs");
WL_OFFSET(BlockSparseArgs, a, 0); WL_OFFSET(BlockSparseArgs, a_rest, 8); WL_OFFSET(BlockSparseArgs, b, 16);
WL_OFFSET(BlockSparseArgs, b_rest, 24); WL_OFFSET(BlockSparseArgs, flags, 32); WL_OFFSET(BlockSparseArgs, c, 40);
WL_OFFSET(BlockSparseArgs, m, 48); WL_OFFSET(BlockSparseArgs, n, 56); WL_OFFSET(BlockSparseArgs, k, 64);
WL_OFFSET(BlockSparseArgs, a_stride, 72); WL_OFFSET(BlockSparseArgs, b_stride, 80);
WL_OFFSET(BlockSparseArgs, c_stride, 88); WL_OFFSET(BlockSparseArgs, tiles, 96); WL_OFFSET(BlockSparseArgs, add, 104);
WL_OFFSET(BlockSparseArgs, pad, 108);

// Rows that bring the classes over which their softmax goes.
struct SubsetArgs {
  const void* ids;          // Ids of classes, k a row.
  const void* counts;       // How many of a row count; null: all.
  const void* target;       // Class indices; null where the targets are probabilities.
  const void* weight;       // Of classes, or null.
  const float* row_weight;  // Of rows, or null.
  wl_i64* labels;           // Per row: its target, or the ignored one where that is not listed.
  wl_i64* places;           // Per row: where in its list the target is, or -1 where the row does not count.
  float* factors;           // Per row: its weight times that of its class; null: nobody reads it.
  wl_i64* wrong;            // Per row: what is wrong with it.
  wl_i64* listed;           // Classes of rows, rising.
  wl_i64* slots;            // The row of each of them.
  wl_i64* sources;          // Where among the given ids each stood; null: nobody asks.
  const void* x;            // Hidden rows, given logits, or probabilities.
  const void* matrix;       // The classifier; null where logits are given.
  const void* bias;         // Its bias, or null.
  float* z;                 // Of listed classes: logits, or their gradient, or probabilities.
  void* to;
  wl_i64* found;            // Places of classes, which become their ids.
  Status* status;
  wl_i64 n;
  wl_i64 k;                 // Ids a row.
  wl_i64 columns;           // Places of a list that may hold a class.
  wl_i64 stride;            // Elements between lists.
  wl_i64 classes;
  wl_i64 features;
  wl_i64 ignore_index;
  wl_i64 ids_stride;        // Elements between rows; 0: all rows have the same ids.
  wl_i64 x_stride;
  wl_i64 matrix_stride;
  wl_i64 to_stride;
  wl_u32 ids_kind;
  wl_u32 counts_kind;
  wl_u32 target_kind;
  wl_u32 weight_kind;
  wl_u32 kind;              // Of x, matrix, bias and to.
  wl_u32 ignores_missing;   // A row whose target is not listed does not count.
  wl_u32 add;               // To what is there.
  wl_u32 pad;
};
static_assert(sizeof(SubsetArgs) == 272, "SubsetArgs");
WL_OFFSET(SubsetArgs, ids, 0); WL_OFFSET(SubsetArgs, counts, 8); WL_OFFSET(SubsetArgs, target, 16);
WL_OFFSET(SubsetArgs, weight, 24); WL_OFFSET(SubsetArgs, row_weight, 32); WL_OFFSET(SubsetArgs, labels, 40);
WL_OFFSET(SubsetArgs, places, 48); WL_OFFSET(SubsetArgs, factors, 56); WL_OFFSET(SubsetArgs, wrong, 64);
WL_OFFSET(SubsetArgs, listed, 72); WL_OFFSET(SubsetArgs, slots, 80); WL_OFFSET(SubsetArgs, sources, 88);
WL_OFFSET(SubsetArgs, x, 96); WL_OFFSET(SubsetArgs, matrix, 104); WL_OFFSET(SubsetArgs, bias, 112);
WL_OFFSET(SubsetArgs, z, 120); WL_OFFSET(SubsetArgs, to, 128); WL_OFFSET(SubsetArgs, found, 136);
WL_OFFSET(SubsetArgs, status, 144); WL_OFFSET(SubsetArgs, n, 152); WL_OFFSET(SubsetArgs, k, 160);
WL_OFFSET(SubsetArgs, columns, 168); WL_OFFSET(SubsetArgs, stride, 176); WL_OFFSET(SubsetArgs, classes, 184);
WL_OFFSET(SubsetArgs, features, 192); WL_OFFSET(SubsetArgs, ignore_index, 200); WL_OFFSET(SubsetArgs, ids_stride, 208);
WL_OFFSET(SubsetArgs, x_stride, 216); WL_OFFSET(SubsetArgs, matrix_stride, 224); WL_OFFSET(SubsetArgs, to_stride, 232);
WL_OFFSET(SubsetArgs, ids_kind, 240); WL_OFFSET(SubsetArgs, counts_kind, 244); WL_OFFSET(SubsetArgs, target_kind, 248);
WL_OFFSET(SubsetArgs, weight_kind, 252); WL_OFFSET(SubsetArgs, kind, 256); WL_OFFSET(SubsetArgs, ignores_missing, 260);
WL_OFFSET(SubsetArgs, add, 264); WL_OFFSET(SubsetArgs, pad, 268);

// Rows with lists of classes, beside which all others stand as one.
struct RestArgs {
  LogitArgs logits;
  const wl_i64* listed;     // Classes of rows, rising.
  float* x;                 // Logits of all classes, then their gradient.
  float* z;                 // Of listed classes and, behind their last place, of the rest: logits less the row's shift,
                            // then their gradient.
  float* slopes;            // Their slopes by a soft-cap; null: there is none.
  float* probabilities;     // Their probabilities.
  float* of_probabilities;  // The gradient of those, or null.
  float* sums;              // Per row: its shift and what its rest is, less that.
  float* lse;               // Per row, less its shift; or null.
  wl_i64 n;
  wl_i64 columns;           // Places of a list and one.
  wl_i64 stride;            // Elements between lists.
  wl_i64 classes;
  wl_i64 x_stride;
};
static_assert(sizeof(RestArgs) == 136, "RestArgs");
WL_OFFSET(RestArgs, logits, 0); WL_OFFSET(RestArgs, listed, 32); WL_OFFSET(RestArgs, x, 40); WL_OFFSET(RestArgs, z, 48);
WL_OFFSET(RestArgs, slopes, 56); WL_OFFSET(RestArgs, probabilities, 64); WL_OFFSET(RestArgs, of_probabilities, 72);
WL_OFFSET(RestArgs, sums, 80); WL_OFFSET(RestArgs, lse, 88); WL_OFFSET(RestArgs, n, 96);
WL_OFFSET(RestArgs, columns, 104); WL_OFFSET(RestArgs, stride, 112); WL_OFFSET(RestArgs, classes, 120);
WL_OFFSET(RestArgs, x_stride, 128);

// Negative log-likelihood: position k of block n has class c at `n * stride + c * class_stride + k`.
struct NllArgs {
  const void* x;
  void* y;               // The gradient.
  const void* target;    // Class indices, a block's positions after one another.
  const void* weight;    // Class weights, or null.
  const void* upstream;  // Gradient of the result: one number or one a row, or null.
  float* loss;           // Per row, doubles where they are wide.
  const Totals* totals;
  wl_i64 rows;           // Blocks times positions.
  wl_i64 classes;
  wl_i64 stride;
  wl_i64 class_stride;
  wl_i64 positions;
  wl_i64 ignore_index;
  wl_i64 parts;          // Rows of neighbouring classes: stretches of a row.
  wl_i64 slice;          // Rows of neighbouring classes: packs of a stretch.
  float number;          // The upstream gradient, where `upstream` is null.
  wl_u32 kind;           // Of x and y.
  wl_u32 target_kind;
  wl_u32 weight_kind;
  wl_u32 upstream_kind;
  wl_u32 upstream_rows;  // 1: one a row.
  wl_u32 mean;           // Divide by the totals.
  wl_u32 wide;           // Rows' losses are doubles.
  SumArgs sum;           // Of the rows' losses.
};
static_assert(sizeof(NllArgs) == 224, "NllArgs");
WL_OFFSET(NllArgs, x, 0); WL_OFFSET(NllArgs, y, 8); WL_OFFSET(NllArgs, target, 16); WL_OFFSET(NllArgs, weight, 24);
WL_OFFSET(NllArgs, upstream, 32); WL_OFFSET(NllArgs, loss, 40); WL_OFFSET(NllArgs, totals, 48);
WL_OFFSET(NllArgs, rows, 56); WL_OFFSET(NllArgs, classes, 64); WL_OFFSET(NllArgs, stride, 72);
WL_OFFSET(NllArgs, class_stride, 80); WL_OFFSET(NllArgs, positions, 88); WL_OFFSET(NllArgs, ignore_index, 96);
WL_OFFSET(NllArgs, parts, 104); WL_OFFSET(NllArgs, slice, 112); WL_OFFSET(NllArgs, number, 120);
WL_OFFSET(NllArgs, kind, 124); WL_OFFSET(NllArgs, target_kind, 128); WL_OFFSET(NllArgs, weight_kind, 132);
WL_OFFSET(NllArgs, upstream_kind, 136); WL_OFFSET(NllArgs, upstream_rows, 140); WL_OFFSET(NllArgs, mean, 144);
WL_OFFSET(NllArgs, wide, 148); WL_OFFSET(NllArgs, sum, 152);

// Rows of the logits' type and length beside them, and their gradient.
struct BesideArgs {
  const void* values;
  void* gradient;
  wl_i64 stride;           // Elements between rows.
  wl_i64 gradient_stride;  // Elements between rows.
};
static_assert(sizeof(BesideArgs) == 32, "BesideArgs");
WL_OFFSET(BesideArgs, values, 0); WL_OFFSET(BesideArgs, gradient, 8); WL_OFFSET(BesideArgs, stride, 16);
WL_OFFSET(BesideArgs, gradient_stride, 24);

// What a row's log-probability and entropy are written to.
struct TokenOutputs {
  float* logprob;
  float* entropy;
  float* lse;      // Written forward, read backward.
};
static_assert(sizeof(TokenOutputs) == 24, "TokenOutputs");
WL_OFFSET(TokenOutputs, logprob, 0); WL_OFFSET(TokenOutputs, entropy, 8); WL_OFFSET(TokenOutputs, lse, 16);

// Rows whose likeliest classes are asked for.
struct TopArgs {
  LogitArgs logits;
  LabelArgs target;
  const void* x;
  wl_i64* top_classes;  // `[n, k]`.
  float* top_logprob;   // `[n, k]`.
  wl_i64 n;
  wl_i64 classes;
  wl_i64 stride;        // Elements between rows.
  wl_i64 k;
  wl_u32 kind;
  wl_u32 pad;
};
static_assert(sizeof(TopArgs) == 120, "TopArgs");
WL_OFFSET(TopArgs, logits, 0); WL_OFFSET(TopArgs, target, 32); WL_OFFSET(TopArgs, x, 56);
WL_OFFSET(TopArgs, top_classes, 64); WL_OFFSET(TopArgs, top_logprob, 72); WL_OFFSET(TopArgs, n, 80);
WL_OFFSET(TopArgs, classes, 88); WL_OFFSET(TopArgs, stride, 96); WL_OFFSET(TopArgs, k, 104);
WL_OFFSET(TopArgs, kind, 112); WL_OFFSET(TopArgs, pad, 116);

// Log-probability of the target and entropy.
struct LogprobEntropyArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;    // Of the log-probability.
  UpstreamArgs of_entropy;  // Of the entropy.
  LogitArgs logits;
  LabelArgs target;
  TokenOutputs out;
  RankOutputs ranks;
};
static_assert(sizeof(LogprobEntropyArgs) == 336, "LogprobEntropyArgs");
WL_OFFSET(LogprobEntropyArgs, rows, 0); WL_OFFSET(LogprobEntropyArgs, schedule, 80);
WL_OFFSET(LogprobEntropyArgs, upstream, 192); WL_OFFSET(LogprobEntropyArgs, of_entropy, 216);
WL_OFFSET(LogprobEntropyArgs, logits, 240); WL_OFFSET(LogprobEntropyArgs, target, 272);
WL_OFFSET(LogprobEntropyArgs, out, 296); WL_OFFSET(LogprobEntropyArgs, ranks, 320);

// Cross entropy against probabilities, or against a teacher's logits.
struct SoftCrossEntropyArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;
  LogitArgs logits;
  BesideArgs target;
  WeightArgs weight;
  SmoothingArgs options;
  LossOutputs out;
  float teacher;          // The teacher's scale.
  wl_u32 pad;
};
static_assert(sizeof(SoftCrossEntropyArgs) == 368, "SoftCrossEntropyArgs");
WL_OFFSET(SoftCrossEntropyArgs, rows, 0); WL_OFFSET(SoftCrossEntropyArgs, schedule, 80);
WL_OFFSET(SoftCrossEntropyArgs, upstream, 192); WL_OFFSET(SoftCrossEntropyArgs, logits, 216);
WL_OFFSET(SoftCrossEntropyArgs, target, 248); WL_OFFSET(SoftCrossEntropyArgs, weight, 280);
WL_OFFSET(SoftCrossEntropyArgs, options, 296); WL_OFFSET(SoftCrossEntropyArgs, out, 328);
WL_OFFSET(SoftCrossEntropyArgs, teacher, 360); WL_OFFSET(SoftCrossEntropyArgs, pad, 364);

// Jensen-Shannon divergence from a teacher's logits.
struct JsDivLogitsArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;
  BesideArgs target;      // The teacher's logits.
  LabelArgs labels;       // Which rows do not count; null: all do.
  float* loss;            // Per row.
  const Totals* totals;
  float scale;
  float teacher;          // The teacher's scale.
  float beta;
  float share;            // A row's share of its sum: 1, or 1 / classes.
  wl_u32 mean;            // Divide by the totals.
  wl_u32 pad;
};
static_assert(sizeof(JsDivLogitsArgs) == 312, "JsDivLogitsArgs");
WL_OFFSET(JsDivLogitsArgs, rows, 0); WL_OFFSET(JsDivLogitsArgs, schedule, 80);
WL_OFFSET(JsDivLogitsArgs, upstream, 192); WL_OFFSET(JsDivLogitsArgs, target, 216);
WL_OFFSET(JsDivLogitsArgs, labels, 248); WL_OFFSET(JsDivLogitsArgs, loss, 272); WL_OFFSET(JsDivLogitsArgs, totals, 280);
WL_OFFSET(JsDivLogitsArgs, scale, 288); WL_OFFSET(JsDivLogitsArgs, teacher, 292); WL_OFFSET(JsDivLogitsArgs, beta, 296);
WL_OFFSET(JsDivLogitsArgs, share, 300); WL_OFFSET(JsDivLogitsArgs, mean, 304); WL_OFFSET(JsDivLogitsArgs, pad, 308);

// Log-softmax, and its gradient.
struct LogSoftmaxArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;  // One an element.
  const float* bias;      // What logits that are products still lack, one a class.
};
static_assert(sizeof(LogSoftmaxArgs) == 224, "LogSoftmaxArgs");
WL_OFFSET(LogSoftmaxArgs, rows, 0); WL_OFFSET(LogSoftmaxArgs, schedule, 80); WL_OFFSET(LogSoftmaxArgs, upstream, 192);
WL_OFFSET(LogSoftmaxArgs, bias, 216);

// Log-sum-exp, and its gradient.
struct LogSumExpArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;
  float* lse;
};
static_assert(sizeof(LogSumExpArgs) == 224, "LogSumExpArgs");
WL_OFFSET(LogSumExpArgs, rows, 0); WL_OFFSET(LogSumExpArgs, schedule, 80); WL_OFFSET(LogSumExpArgs, upstream, 192);
WL_OFFSET(LogSumExpArgs, lse, 216);

// Multi-class margin loss.
struct MultiMarginArgs {
  RowOperands rows;
  RowSchedule schedule;
  UpstreamArgs upstream;
  LabelArgs target;
  WeightArgs weight;
  float* loss;            // Per row, doubles where they are wide.
  const Totals* totals;
  float margin;
  wl_u32 square;          // The exponent is 2.
  wl_u32 mean;            // Divide by the totals.
  wl_u32 wide;
};
static_assert(sizeof(MultiMarginArgs) == 288, "MultiMarginArgs");
WL_OFFSET(MultiMarginArgs, rows, 0); WL_OFFSET(MultiMarginArgs, schedule, 80);
WL_OFFSET(MultiMarginArgs, upstream, 192); WL_OFFSET(MultiMarginArgs, target, 216);
WL_OFFSET(MultiMarginArgs, weight, 240); WL_OFFSET(MultiMarginArgs, loss, 256); WL_OFFSET(MultiMarginArgs, totals, 264);
WL_OFFSET(MultiMarginArgs, margin, 272); WL_OFFSET(MultiMarginArgs, square, 276); WL_OFFSET(MultiMarginArgs, mean, 280);
WL_OFFSET(MultiMarginArgs, wide, 284);

// Sums over rows of probabilities.
struct InformationArgs {
  RowOperands rows;
  RowSchedule schedule;
  BesideArgs target;     // q, without a gradient.
  float* loss;           // Per row.
  float of_p;            // What ln p counts in a term.
  float of_q;            // What ln q does.
};
static_assert(sizeof(InformationArgs) == 240, "InformationArgs");
WL_OFFSET(InformationArgs, rows, 0); WL_OFFSET(InformationArgs, schedule, 80); WL_OFFSET(InformationArgs, target, 192);
WL_OFFSET(InformationArgs, loss, 224); WL_OFFSET(InformationArgs, of_p, 232); WL_OFFSET(InformationArgs, of_q, 236);
