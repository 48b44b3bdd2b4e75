/* The losses of warploss: README.md. */

#ifndef WARPLOSS_H
#define WARPLOSS_H

/* Made by cbindgen from src/: `WARPLOSS_WRITE_HEADER=1 cargo test --test header`. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 How a call ended.
 */
typedef enum warploss_status {
  /*
   Done; on a CUDA device: begun.
   */
  WARPLOSS_STATUS_OK = 0,
  /*
   An argument is not what it has to be; nothing was written to any of the caller's buffers.
   */
  WARPLOSS_STATUS_BAD_ARGUMENT = 1,
  /*
   The device failed, or memory ran out, before anything was written.
   */
  WARPLOSS_STATUS_FAILED = 2,
  /*
   A fault of the library itself, which was caught; what was to be written may be, in part.
   */
  WARPLOSS_STATUS_FAULT = 3,
} warploss_status;

/*
 Which loss.
 */
typedef enum warploss_elementwise {
  /*
   Squared difference.
   */
  WARPLOSS_ELEMENTWISE_MSE = 0,
  /*
   Absolute difference.
   */
  WARPLOSS_ELEMENTWISE_L1 = 1,
  /*
   PyTorch's smooth L1; `parameter` is beta.
   */
  WARPLOSS_ELEMENTWISE_SMOOTH_L1 = 2,
  /*
   Huber's; `parameter` is delta.
   */
  WARPLOSS_ELEMENTWISE_HUBER = 3,
  /*
   Binary cross entropy of logits.
   */
  WARPLOSS_ELEMENTWISE_BCE_WITH_LOGITS = 4,
  /*
   Kullback-Leibler divergence of log-probabilities from probabilities.
   */
  WARPLOSS_ELEMENTWISE_KL_DIV = 5,
} warploss_elementwise;

/*
 What losses of rows come to.
 */
typedef enum warploss_reduction {
  /*
   One a row.
   */
  WARPLOSS_REDUCTION_NONE = 0,
  /*
   Their sum.
   */
  WARPLOSS_REDUCTION_SUM = 1,
  /*
   Their mean.
   */
  WARPLOSS_REDUCTION_MEAN = 2,
  /*
   Their sum over the number of rows: of divergences alone.
   */
  WARPLOSS_REDUCTION_BATCH_MEAN = 3,
} warploss_reduction;

/*
 A device: the CPU's threads, or a stream of a CUDA device. It may be called from several threads.
 */
typedef struct warploss_device warploss_device;

/*
 Where memory lies: DLPack's `DLDevice`.
 */
typedef struct warploss_place {
  /*
   1: the host; 2: a CUDA device; 3: the host, pinned.
   */
  int32_t device_type;
  /*
   Which of several.
   */
  int32_t device_id;
} warploss_place;

/*
 Type of elements: DLPack's `DLDataType`.
 */
typedef struct warploss_dtype {
  /*
   0: signed integer, 1: unsigned integer, 2: IEEE float, 4: bfloat.
   */
  uint8_t code;
  /*
   Bits of an element.
   */
  uint8_t bits;
  /*
   1.
   */
  uint16_t lanes;
} warploss_dtype;

/*
 A tensor: DLPack's `DLTensor`, member by member.
 */
typedef struct warploss_tensor {
  /*
   The memory.
   */
  void *data;
  /*
   Where it lies.
   */
  struct warploss_place device;
  /*
   Dimensions, at most 8.
   */
  int32_t ndim;
  /*
   Type of elements.
   */
  struct warploss_dtype dtype;
  /*
   Sizes of the dimensions.
   */
  const int64_t *shape;
  /*
   Elements between neighbours along each dimension: rows may lie at any distance, what is inside of them in one piece.
   Null: all in one piece.
   */
  const int64_t *strides;
  /*
   Bytes from `data` to the first element.
   */
  uint64_t byte_offset;
} warploss_tensor;

/*
 Options of cross entropy: `warploss_cross_entropy_options_default` makes them.
 */
typedef struct warploss_cross_entropy_options {
  /*
   Class weights, `[C]`; null: 1 each.
   */
  const struct warploss_tensor *weight;
  /*
   The label of rows that do not count. Default -100.
   */
  int64_t ignore_index;
  /*
   A `warploss_reduction`. Default the mean.
   */
  uint32_t reduction;
  /*
   From 0 to 1. Default 0.
   */
  double label_smoothing;
  /*
   Of the z-loss. Default 0.
   */
  double lse_square_scale;
  /*
   The inverse temperature. Default 1.
   */
  float logit_scale;
  /*
   Logits are bent to stay within it; 0 (the default): they are not.
   */
  float softcap;
} warploss_cross_entropy_options;

/*
 Upstream gradients: a tensor where it is not null, else the number.
 */
typedef struct warploss_upstream {
  /*
   Of the loss: its shape.
   */
  const struct warploss_tensor *grad_output;
  /*
   The same as a number. Default 1.
   */
  float grad_output_number;
  /*
   Of log-probabilities, one a row; null: none.
   */
  const struct warploss_tensor *grad_logprob;
  /*
   Of entropies, one a row; null: none.
   */
  const struct warploss_tensor *grad_entropy;
} warploss_upstream;

/*
 Where results go; null: they are not asked for, but the loss is.
 */
typedef struct warploss_cross_entropy_outputs {
  /*
   `[]`, or one a row without a reduction; f32.
   */
  const struct warploss_tensor *loss;
  /*
   Log-sum-exp, one a row; f32.
   */
  const struct warploss_tensor *lse;
  /*
   The loss's z-loss; its shape.
   */
  const struct warploss_tensor *z_loss;
  /*
   Log-probability of the target, one a row; f32.
   */
  const struct warploss_tensor *logprob;
  /*
   Entropy, one a row; f32.
   */
  const struct warploss_tensor *entropy;
  /*
   The likeliest class, one a row; i64.
   */
  const struct warploss_tensor *argmax;
  /*
   Classes that are likelier than the target, one a row; i64.
   */
  const struct warploss_tensor *rank;
} warploss_cross_entropy_outputs;

/*
 Options of them: `warploss_elementwise_options_default` makes them.
 */
typedef struct warploss_elementwise_options {
  /*
   A `warploss_elementwise`.
   */
  uint32_t loss;
  /*
   A `warploss_reduction`. Default the mean.
   */
  uint32_t reduction;
  /*
   Of the losses that have one. Default 1.
   */
  float parameter;
  /*
   A weight for each element, of losses other than the divergence; null: 1 each.
   */
  const struct warploss_tensor *weight;
} warploss_elementwise_options;

/*
 Hidden states, a classifier and what comes with them; what there need not be is null.
 */
typedef struct warploss_linear_input {
  /*
   Hidden states, `[N, D]`.
   */
  const struct warploss_tensor *input;
  /*
   The classifier, `[V, D]`.
   */
  const struct warploss_tensor *linear_weight;
  /*
   `[V]`, or null.
   */
  const struct warploss_tensor *linear_bias;
  /*
   Class indices, `[N]`; or probabilities, `[N, V]`.
   */
  const struct warploss_tensor *target;
  /*
   What each row's logits are divided by, f32, `[N]`; or null.
   */
  const struct warploss_tensor *temperature;
  /*
   What each row's loss is multiplied by, f32, `[N]`; or null.
   */
  const struct warploss_tensor *row_weight;
} warploss_linear_input;

/*
 Where gradients go; null: none is made.
 */
typedef struct warploss_linear_gradients {
  /*
   As the hidden states.
   */
  const struct warploss_tensor *input;
  /*
   As the classifier.
   */
  const struct warploss_tensor *linear_weight;
  /*
   As the bias.
   */
  const struct warploss_tensor *linear_bias;
  /*
   Whether those of classifier and bias are added to what is there.
   */
  bool accumulate;
} warploss_linear_gradients;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The defaults.
 */
struct warploss_cross_entropy_options warploss_cross_entropy_options_default(void);

/*
 Of a loss that is differentiated itself.
 */
struct warploss_upstream warploss_upstream_default(void);

/*
 Loss, and what else is asked for, of logits `[N, C]` or `[N, C, d1, ...]` and class indices, or probabilities shaped as
 the logits.

 # Safety
 Each pointer is null, or names what its type says, for as long as the call (on a CUDA device, what it began) lasts.
 */
enum warploss_status warploss_cross_entropy_forward(const struct warploss_device *on,
                                                    const struct warploss_cross_entropy_options *with,
                                                    const struct warploss_tensor *logits,
                                                    const struct warploss_tensor *target,
                                                    const struct warploss_cross_entropy_outputs *outputs);

/*
 The same with the gradient of the logits, in one pass: to `grad_logits`, or, where that is null, over the logits.

 # Safety
 As for `warploss_cross_entropy_forward`; the logits may be written where `grad_logits` is null.
 */
enum warploss_status warploss_cross_entropy_forward_backward(const struct warploss_device *on,
                                                             const struct warploss_cross_entropy_options *with,
                                                             const struct warploss_tensor *logits,
                                                             const struct warploss_tensor *target,
                                                             const struct warploss_upstream *upstream,
                                                             const struct warploss_tensor *grad_logits,
                                                             const struct warploss_cross_entropy_outputs *outputs);

/*
 Opens the CPU: so many threads, or (0) as many as there are cores.

 # Safety
 `device` is null, or good for a pointer.
 */
enum warploss_status warploss_device_open_cpu(size_t threads, struct warploss_device **device);

/*
 Opens a CUDA device, with a stream of its own.

 # Safety
 `device` is null, or good for a pointer.
 */
enum warploss_status warploss_device_open_cuda(size_t ordinal, struct warploss_device **device);

/*
 Waits until all that was begun is done, and says what was wrong with it.

 # Safety
 `of` is null, or a device that was opened and not closed.
 */
enum warploss_status warploss_device_synchronize(const struct warploss_device *of);

/*
 Closes a device; null is none.

 # Safety
 Null, or a device that was opened and not closed, which nobody is calling.
 */
void warploss_device_close(struct warploss_device *device);

/*
 The defaults.
 */
struct warploss_elementwise_options warploss_elementwise_options_default(enum warploss_elementwise loss);

/*
 The loss of input and target, whose shapes broadcast, to `loss` (`[]`, or the broadcast shape; f32); and, each where it
 is not null, gradients of both, of an upstream gradient that is `grad_output` or, where that is null, 1.

 # Safety
 As for `warploss_cross_entropy_forward`.
 */
enum warploss_status warploss_elementwise_call(const struct warploss_device *on,
                                               const struct warploss_elementwise_options *with,
                                               const struct warploss_tensor *input,
                                               const struct warploss_tensor *target,
                                               const struct warploss_tensor *grad_output,
                                               const struct warploss_tensor *grad_input,
                                               const struct warploss_tensor *grad_target,
                                               const struct warploss_tensor *loss);

/*
 Loss, and what else is asked for, within so many bytes of memory (0: 512 MiB).

 # Safety
 As for `warploss_cross_entropy_forward`.
 */
enum warploss_status warploss_linear_cross_entropy_forward(const struct warploss_device *on,
                                                           const struct warploss_cross_entropy_options *with,
                                                           size_t max_workspace_bytes,
                                                           const struct warploss_linear_input *input,
                                                           const struct warploss_cross_entropy_outputs *outputs);

/*
 The same with gradients.

 # Safety
 As for `warploss_cross_entropy_forward`.
 */
enum warploss_status warploss_linear_cross_entropy_forward_backward(const struct warploss_device *on,
                                                                    const struct warploss_cross_entropy_options *with,
                                                                    size_t max_workspace_bytes,
                                                                    const struct warploss_linear_input *input,
                                                                    const struct warploss_upstream *upstream,
                                                                    const struct warploss_linear_gradients *gradients,
                                                                    const struct warploss_cross_entropy_outputs *outputs);

/*
 What was wrong with this thread's last call that was not done; empty before one. Valid until the thread's next call that
 is not done.
 */
const char *warploss_last_error(void);

/*
 The library's version.
 */
const char *warploss_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WARPLOSS_H */
