/* Trains a classifier of 64 classes on points around 64 centres: hidden states are the points, and the call needs neither
 * logits nor their gradient. Ends with 0 if the loss has fallen as it should. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "warploss.h"

enum { ROWS = 256, FEATURES = 16, CLASSES = 64, STEPS = 200 };

static warploss_tensor tensor(void *data, uint8_t code, uint8_t bits, int32_t ndim, const int64_t *shape) {
  warploss_tensor t;
  memset(&t, 0, sizeof t);
  t.data = data;
  t.device.device_type = 1;
  t.ndim = ndim;
  t.dtype.code = code, t.dtype.bits = bits, t.dtype.lanes = 1;
  t.shape = shape;
  return t;
}

static void must(enum warploss_status status) {
  if (status == WARPLOSS_STATUS_OK) return;
  fprintf(stderr, "train: %s\n", warploss_last_error());
  exit(1);
}

static uint64_t state = 1;
static float uniform(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (float)(state >> 40) / (1 << 23) - 1;
}

int main(void) {
  static float centres[CLASSES][FEATURES], input[ROWS][FEATURES];
  static float weight[CLASSES][FEATURES], grad[CLASSES][FEATURES], bias[CLASSES], grad_bias[CLASSES];
  static int64_t target[ROWS];
  float loss = 0, first = 0;
  for (int c = 0; c < CLASSES; c++)
    for (int d = 0; d < FEATURES; d++) centres[c][d] = uniform();

  const int64_t rows[] = {ROWS, FEATURES}, classes[] = {CLASSES, FEATURES};
  const warploss_tensor x = tensor(input, 2, 32, 2, rows), t = tensor(target, 0, 64, 1, rows);
  const warploss_tensor w = tensor(weight, 2, 32, 2, classes), b = tensor(bias, 2, 32, 1, classes);
  const warploss_tensor dw = tensor(grad, 2, 32, 2, classes), db = tensor(grad_bias, 2, 32, 1, classes);
  const warploss_tensor l = tensor(&loss, 2, 32, 0, NULL);

  warploss_device *device = NULL;
  must(warploss_device_open_cpu(0, &device));
  const warploss_cross_entropy_options options = warploss_cross_entropy_options_default();
  const warploss_upstream upstream = warploss_upstream_default();
  const warploss_linear_input batch = {&x, &w, &b, &t, NULL, NULL};
  const warploss_linear_gradients gradients = {NULL, &dw, &db, false};
  const warploss_cross_entropy_outputs outputs = {&l, NULL, NULL, NULL, NULL, NULL, NULL};
  for (int step = 0; step < STEPS; step++) {
    for (int r = 0; r < ROWS; r++) {
      target[r] = (int64_t)((uniform() + 1) / 2 * CLASSES) % CLASSES;
      for (int d = 0; d < FEATURES; d++) input[r][d] = centres[target[r]][d] + 0.1f * uniform();
    }
    must(warploss_linear_cross_entropy_forward_backward(device, &options, 0, &batch, &upstream, &gradients, &outputs));
    for (int c = 0; c < CLASSES; c++) {
      bias[c] -= 4 * grad_bias[c];
      for (int d = 0; d < FEATURES; d++) weight[c][d] -= 4 * grad[c][d];
    }
    if (step == 0) first = loss;
    if (step % 50 == 49) printf("step %3d: loss %.4f\n", step + 1, loss);
  }
  /* A wrong call is not done, and says why. */
  target[3] = CLASSES;
  if (warploss_linear_cross_entropy_forward_backward(device, &options, 0, &batch, &upstream, &gradients, &outputs) !=
          WARPLOSS_STATUS_BAD_ARGUMENT ||
      strstr(warploss_last_error(), "row 3") == NULL)
    return 1;
  warploss_device_close(device);
  return fabsf(first - logf(CLASSES)) < 1e-3f && loss < first / 4 ? 0 : 1;
}
