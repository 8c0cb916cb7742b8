/* Buffers from C on the device that the argument names: written, read, used in place by kernels, several times, in parts;
 * refused ranges and devices; threads that share buffers; after finalisation and a fork. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static const char SOURCE[] =
    "!@kernel\n"
    "subroutine scale(i, n, a, x, y)\n"
    "  use iso_fortran_env\n"
    "  integer(int32), value :: i, n\n"
    "  real(real32), value :: a\n"
    "  real(real32), intent(in) :: x(0:n-1)\n"
    "  real(real32), intent(inout) :: y(0:n-1)\n"
    "  y(i) = a * x(i) + y(i)\n"
    "end subroutine\n";

enum { N = 1000, THREADS = 4, ROUNDS = 20 };

static sparkle_device *device;
static sparkle_kernel *scale;

static sparkle_buffer *created(size_t length) {
  sparkle_buffer *buffer = NULL;
  OK(sparkle_buffer_create(device, SPARKLE_TYPE_REAL32, length, &buffer));
  return buffer;
}

static sparkle_kernel_arg part(sparkle_buffer *buffer, size_t offset, size_t length) {
  return (sparkle_kernel_arg){.size = sizeof(sparkle_kernel_arg),
                              .type = SPARKLE_TYPE_REAL32,
                              .form = SPARKLE_ARG_BUFFER,
                              .buffer = buffer,
                              .offset = offset,
                              .length = length};
}

/* y += a x for n elements. */
static sparkle_status add(sparkle_device *on, float a, sparkle_kernel_arg x, sparkle_kernel_arg y, int n) {
  const int64_t extents[3] = {n, 1, 1};
  const sparkle_kernel_arg args[] = {
      {.size = sizeof(sparkle_kernel_arg), .type = SPARKLE_TYPE_INT32, .value.int32 = n},
      {.size = sizeof(sparkle_kernel_arg), .type = SPARKLE_TYPE_REAL32, .value.real32 = a},
      x,
      y,
  };
  return sparkle_kernel_launch(on, scale, extents, args, 4);
}

static void check_kernels(void) {
  sparkle_buffer *x = created(N), *y = created(N + 3);
  float data[N], back[N + 3];
  for (int i = 0; i < N; i++) data[i] = (float)(i % 17);
  OK(sparkle_buffer_write(x, 0, data, N));
  for (int round = 0; round < 5; round++) OK(add(device, 2.0f, part(x, 0, N), part(y, 3, N), N));
  OK(sparkle_buffer_read(y, 0, back, N + 3));
  for (int i = 0; i < N + 3; i++) {
    float expected = i < 3 ? 0.0f : 10.0f * data[i - 3];
    CHECK(back[i] == expected, "element %d: %g", i, back[i]);
  }
  /* "auto" uses the buffers' device, if that is one of its own. */
  sparkle_status status = add(NULL, 1.0f, part(x, 0, 9), part(y, 0, 9), 9);
  CHECK(status == SPARKLE_OK || status == SPARKLE_ERROR_INVALID_ARGUMENT, "%s", sparkle_last_error());
  OK(sparkle_buffer_destroy(x));
  status = add(device, 1.0f, part(x, 0, N), part(y, 0, N), N);
  CHECK(status == SPARKLE_ERROR_INVALID_HANDLE && strstr(sparkle_last_error(), "\"x\"") != NULL, "%s",
        sparkle_last_error());
  OK(sparkle_buffer_destroy(y));
}

static void check_devices(const char *name) {
  sparkle_device *other = NULL;
  OK(sparkle_device_open(strcmp(name, "cpu") == 0 ? "auto" : "cpu", &other));
  if (strcmp(name, "cpu") != 0) {
    sparkle_buffer *x = created(4), *y = created(4);
    sparkle_status status = add(other, 1.0f, part(x, 0, 4), part(y, 0, 4), 4);
    CHECK(status == SPARKLE_ERROR_INVALID_ARGUMENT, "%d", (int)status);
    CHECK(strstr(sparkle_last_error(), "\"x\" with a buffer of gl:") != NULL, "%s", sparkle_last_error());
    OK(sparkle_buffer_destroy(x));
    OK(sparkle_buffer_destroy(y));
  }
  OK(sparkle_device_close(other));
}

/* conv -> kernel -> conv -> sgemm in place, with the numbers of the same calls on arrays. */
static void check_chain(void) {
  static const struct conv CONV = {1, 3, 9, 8, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1};
  size_t count = output_len(&CONV);
  sparkle_conv2d_desc desc = describe(&CONV, 0, 0);
  float *input = integers(count, 1), *weights = integers(weights_len(&CONV), 2), *middle = floats(count);
  float *last = floats(count), product[9], back[9];
  sparkle_plan *plan = NULL;
  OK(sparkle_plan_create(device, &desc, weights, weights_len(&CONV), NULL, 0, &plan));
  sparkle_buffer *x = created(count), *y = created(count), *z = created(count + 5), *c = created(9);
  OK(sparkle_buffer_write(x, 0, input, count));
  OK(sparkle_plan_execute_buffers(plan, x, 0, y, 0));
  OK(add(device, 2.0f, part(x, 0, count), part(y, 0, count), (int)count));
  OK(sparkle_plan_execute_buffers(plan, y, 0, z, 5));
  sparkle_gemm_desc gemm = {.size = sizeof gemm,
                            .layout = SPARKLE_ROW_MAJOR,
                            .trans_a = SPARKLE_NO_TRANS,
                            .trans_b = SPARKLE_TRANS,
                            .m = 3,
                            .n = 3,
                            .k = 72,
                            .lda = 72,
                            .ldb = 72,
                            .ldc = 3,
                            .alpha = 1.0f};
  OK(sparkle_sgemm_buffers(device, &gemm, z, 5, x, 0, c, 0));
  sparkle_timing timing = {.size = sizeof timing};
  OK(sparkle_last_timing(&timing));
  CHECK(strncmp(timing.kernel, "sgemm", 5) == 0, "%s", timing.kernel);

  OK(sparkle_plan_execute(plan, input, count, middle, count));
  for (size_t i = 0; i < count; i++) middle[i] += 2.0f * input[i];
  OK(sparkle_plan_execute(plan, middle, count, last, count));
  OK(sparkle_sgemm(device, &gemm, last, count, input, count, product, 9));
  OK(sparkle_buffer_read(c, 0, back, 9));
  for (int i = 0; i < 9; i++) CHECK(back[i] == product[i] && product[i] != 0.0f, "%d: %g, not %g", i, back[i], product[i]);
  OK(sparkle_plan_destroy(plan));
  sparkle_buffer *all[] = {x, y, z, c};
  for (int i = 0; i < 4; i++) OK(sparkle_buffer_destroy(all[i]));
  free(input), free(weights), free(middle), free(last);
}

static sparkle_buffer *shared;

/* Reads what all threads read, and writes what it owns. */
static void *work(void *unused) {
  (void)unused;
  sparkle_buffer *own = created(N);
  float back[N];
  for (int round = 0; round < ROUNDS; round++) OK(add(device, 1.0f, part(shared, 0, N), part(own, 0, N), N));
  OK(sparkle_buffer_read(own, 0, back, N));
  for (int i = 0; i < N; i++) CHECK(back[i] == (float)ROUNDS * (float)i, "element %d: %g", i, back[i]);
  OK(sparkle_buffer_destroy(own));
  return NULL;
}

/* Several write one buffer: a call does all of its work or returns BUSY. */
static void *contend(void *busy) {
  for (int round = 0; round < ROUNDS; round++) {
    sparkle_status status = add(device, 1.0f, part(shared, 0, N / 2), part(shared, N / 2, N / 2), N / 2);
    CHECK(status == SPARKLE_OK || status == SPARKLE_ERROR_BUSY, "%s", sparkle_last_error());
    if (status == SPARKLE_ERROR_BUSY) ++*(int *)busy;
  }
  return NULL;
}

static void check_threads(void) {
  pthread_t threads[THREADS];
  float data[N], back[N];
  int busy[THREADS] = {0}, refused = 0;
  for (int i = 0; i < N; i++) data[i] = (float)i;
  shared = created(N);
  OK(sparkle_buffer_write(shared, 0, data, N));
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0, "a thread");
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "its end");
  for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, contend, &busy[i]) == 0, "a thread");
  for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0, "its end");
  for (int i = 0; i < THREADS; i++) refused += busy[i];
  OK(sparkle_buffer_read(shared, 0, back, N));
  float times = (float)(THREADS * ROUNDS - refused);
  for (int i = 0; i < N / 2; i++) {
    float expected = data[N / 2 + i] + times * data[i];
    CHECK(back[i] == data[i] && back[N / 2 + i] == expected, "element %d: %g after %g", i, back[N / 2 + i], times);
  }
  OK(sparkle_buffer_destroy(shared));
}

static void check_fork(int on_gl) {
  sparkle_buffer *buffer = created(N);
  float data[N], back[N];
  for (int i = 0; i < N; i++) data[i] = (float)i;
  OK(sparkle_buffer_write(buffer, 0, data, N));
  pid_t child = fork();
  CHECK(child >= 0, "fork");
  if (child == 0) {
    sparkle_status status = sparkle_buffer_read(buffer, 0, back, N);
    CHECK(status == (on_gl ? SPARKLE_ERROR_FORKED : SPARKLE_OK), "%s", sparkle_last_error());
    OK(sparkle_buffer_destroy(buffer));
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
  OK(sparkle_buffer_read(buffer, 0, back, N));
  CHECK(memcmp(data, back, sizeof data) == 0, "the parent's buffer");
  OK(sparkle_finalize());
  status = sparkle_buffer_read(buffer, 0, back, N);
  CHECK(status == SPARKLE_ERROR_INVALID_HANDLE, "%d", status);
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: buffers DEVICE");
  OK(sparkle_device_open(argv[1], &device));
  OK(sparkle_kernel_compile(SOURCE, sizeof SOURCE - 1, NULL, &scale));
  check_kernels();
  puts("kernels");
  check_chain();
  puts("a chain");
  check_devices(argv[1]);
  puts("devices");
  check_threads();
  puts("threads");
  check_fork(strncmp(argv[1], "gl:", 3) == 0);
  puts("forks");
  return 0;
}
