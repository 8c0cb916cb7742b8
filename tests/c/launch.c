/* Kernels launched from C on the device that the argument names: every type, two dimensions, a reduction, no points,
 * refused arguments, threads that share a kernel, 64 KiB of stack. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

static const char SOURCE[] =
    "!@kernel\n"
    "subroutine mixed(i, n, a, yes, x, k, flags, y)\n"
    "  use iso_fortran_env\n"
    "  integer(int32), value :: i, n\n"
    "  real(real32), value :: a\n"
    "  logical, value :: yes\n"
    "  real(real32), intent(in) :: x(0:n-1)\n"
    "  integer(int32), intent(inout) :: k(0:n-1)\n"
    "  logical, intent(inout) :: flags(0:n-1)\n"
    "  real(real32), intent(out) :: y(0:n-1)\n"
    "  y(i) = a * x(i)\n"
    "  if (flags(i) .and. yes) y(i) = -y(i)\n"
    "  flags(i) = .not. flags(i)\n"
    "  k(i) = 2 * k(i) + 1\n"
    "end subroutine\n"
    "!@kernel(dims=2, base=1)\n"
    "subroutine place(i, j, n, m, y)\n"
    "  use iso_fortran_env\n"
    "  integer(int32), value :: i, j, n, m\n"
    "  real(real32), intent(out) :: y(n, m)\n"
    "  y(i, j) = i + 100 * j\n"
    "end subroutine\n"
    "!@kernel\n"
    "!@reduce(+: total)\n"
    "subroutine sum(i, x, total)\n"
    "  use iso_fortran_env\n"
    "  integer(int32), value :: i\n"
    "  real(real32), intent(in) :: x\n"
    "  real(real32), intent(inout) :: total\n"
    "  total = total + x\n"
    "end subroutine\n";

enum { N = 777, THREADS = 4 };

static sparkle_device *device;
static sparkle_kernel *mixed, *place, *sum;

static sparkle_kernel *compiled(const char *name) {
  sparkle_kernel *kernel = NULL;
  OK(sparkle_kernel_compile(SOURCE, sizeof SOURCE - 1, name, &kernel));
  return kernel;
}

static sparkle_kernel_arg integer(int value) {
  return (sparkle_kernel_arg){.size = sizeof(sparkle_kernel_arg), .type = SPARKLE_TYPE_INT32, .value.int32 = value};
}

static sparkle_kernel_arg real(float value) {
  return (sparkle_kernel_arg){.size = sizeof(sparkle_kernel_arg), .type = SPARKLE_TYPE_REAL32, .value.real32 = value};
}

static sparkle_kernel_arg truth(int value) {
  return (sparkle_kernel_arg){.size = sizeof(sparkle_kernel_arg), .type = SPARKLE_TYPE_LOGICAL, .value.int32 = value};
}

static sparkle_kernel_arg array(int type, int form, const void *address, size_t length) {
  return (sparkle_kernel_arg){
      .size = sizeof(sparkle_kernel_arg), .type = type, .form = form, .address = address, .length = length};
}

static void check_types(void) {
  float x[N], y[N];
  int32_t k[N], flags[N];
  for (int i = 0; i < N; i++) x[i] = (float)(i % 13), y[i] = CANARY, k[i] = i - 300, flags[i] = i % 3 == 0 ? 5 : 0;
  const sparkle_kernel_arg args[] = {
      integer(N),
      real(4.0f),
      truth(2),
      array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_INPUT, x, N),
      array(SPARKLE_TYPE_INT32, SPARKLE_ARG_ARRAY, k, N),
      array(SPARKLE_TYPE_LOGICAL, SPARKLE_ARG_ARRAY, flags, N),
      array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_ARRAY, y, N),
  };
  const int64_t extents[3] = {N, 0, 1};
  OK(sparkle_kernel_launch(device, mixed, extents, args, 7));
  for (int i = 0; i < N; i++) {
    float expected = (i % 3 == 0 ? -4.0f : 4.0f) * (float)(i % 13);
    CHECK(y[i] == expected && k[i] == 2 * (i - 300) + 1 && flags[i] == (i % 3 != 0), "element %d: %g %d %d", i,
          y[i], (int)k[i], (int)flags[i]);
  }
  sparkle_timing timing = {.size = sizeof timing};
  OK(sparkle_last_timing(&timing));
  CHECK(strcmp(timing.kernel, "mixed") == 0 && timing.dispatches > 0 && timing.wall_ms > 0.0, "%s", timing.kernel);
}

static void check_dimensions(void) {
  float y[7 * 5], total = 10.0f;
  const int64_t extents[3] = {7, 5, 1};
  const sparkle_kernel_arg args[] = {integer(7), integer(5), array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_ARRAY, y, 35)};
  OK(sparkle_kernel_launch(device, place, extents, args, 3));
  for (int j = 0; j < 5; j++)
    for (int i = 0; i < 7; i++) CHECK(y[j * 7 + i] == (float)(i + 1 + 100 * (j + 1)), "%d %d: %g", i, j, y[j * 7 + i]);
  const sparkle_kernel_arg all[] = {array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_INPUT, y, 35),
                                    array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_ARRAY, &total, 1)};
  const int64_t points[3] = {35, 1, 1};
  OK(sparkle_kernel_launch(device, sum, points, all, 2));
  CHECK(total == 10.0f + 35 * 4 + 35 * 300, "%g", total);
}

static void check_refused(void) {
  float x[N] = {0}, y[N];
  int32_t k[N] = {0}, flags[N] = {0};
  for (int i = 0; i < N; i++) y[i] = CANARY;
  sparkle_kernel_arg args[] = {
      integer(N),
      real(4.0f),
      truth(1),
      array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_INPUT, x, N),
      array(SPARKLE_TYPE_INT32, SPARKLE_ARG_ARRAY, k, N),
      array(SPARKLE_TYPE_LOGICAL, SPARKLE_ARG_ARRAY, flags, N),
      array(SPARKLE_TYPE_REAL32, SPARKLE_ARG_ARRAY, y, N - 1),
  };
  const int64_t extents[3] = {N, 1, 1};
  sparkle_status status = sparkle_kernel_launch(device, mixed, extents, args, 7);
  CHECK(status == SPARKLE_ERROR_INVALID_ARGUMENT, "%d", (int)status);
  const char *expected = "kernel argument is \"y\" with 776 elements; expected at least 777";
  CHECK(strcmp(sparkle_last_error(), expected) == 0, "%s", sparkle_last_error());
  args[6].length = N, args[3].type = SPARKLE_TYPE_REAL64, args[3].length = N / 2;
  status = sparkle_kernel_launch(device, mixed, extents, args, 7);
  CHECK(status == SPARKLE_ERROR_INVALID_ARGUMENT, "%d", (int)status);
  CHECK(strstr(sparkle_last_error(), "\"x\" with elements of type") != NULL, "%s", sparkle_last_error());
  for (int i = 0; i < N; i++) CHECK(y[i] == CANARY && k[i] == 0 && flags[i] == 0, "element %d", i);
}

static void *all(void *unused) {
  (void)unused;
  check_types();
  check_dimensions();
  check_refused();
  return NULL;
}

static void in_threads(int count, size_t stack) {
  pthread_attr_t attributes;
  pthread_t threads[THREADS];
  CHECK(pthread_attr_init(&attributes) == 0, "attributes");
  if (stack) CHECK(pthread_attr_setstacksize(&attributes, stack) == 0, "%zu bytes of stack", stack);
  for (int i = 0; i < count; i++) CHECK(pthread_create(&threads[i], &attributes, all, NULL) == 0, "a thread");
  for (int i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0, "its end");
}

int main(int argc, char **argv) {
  CHECK(argc == 2, "usage: launch DEVICE");
  OK(sparkle_device_open(argv[1], &device));
  mixed = compiled("mixed"), place = compiled("place"), sum = compiled("sum");
  check_types();
  puts("types");
  check_dimensions();
  puts("dimensions");
  check_refused();
  puts("refused");
  in_threads(THREADS, 0);
  puts("threads");
  in_threads(1, 64 << 10);
  puts("64 KiB of stack");
  OK(sparkle_kernel_destroy(sum));
  OK(sparkle_finalize());
  const int64_t extents[3] = {1, 1, 1};
  sparkle_status status = sparkle_kernel_launch(device, mixed, extents, NULL, 0);
  CHECK(status == SPARKLE_ERROR_INVALID_HANDLE, "%d", (int)status);
  puts("finalized");
  return 0;
}
