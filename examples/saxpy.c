/* y = a x + y with a kernel of one's own. The argument names the device; without one, "auto" chooses it.
 *
 *   cc examples/saxpy.c -Iinclude -Ltarget/release -lsparkle -o saxpy && ./saxpy gl:0 */
#include <sparkle.h>

#include <stdio.h>
#include <string.h>

enum { N = 1000 };

static const char SOURCE[] =
    "!@kernel\n"
    "pure subroutine saxpy(i, n, a, x, y)\n"
    "  use iso_fortran_env, only: int32, real32\n"
    "  integer(int32), value :: i, n\n"
    "  real(real32), value :: a\n"
    "  real(real32), intent(in) :: x(0:n-1)\n"
    "  real(real32), intent(inout) :: y(0:n-1)\n"
    "  y(i) = a * x(i) + y(i)\n"
    "end subroutine saxpy\n";

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, sparkle_last_error());
  return 1;
}

int main(int argc, char **argv) {
  float x[N], y[N];
  for (int i = 0; i < N; i++) x[i] = (float)i, y[i] = 1.0f;

  sparkle_device *device = NULL;
  if (sparkle_device_open(argc > 1 ? argv[1] : NULL, &device) != SPARKLE_OK) return failed("open");
  sparkle_kernel *saxpy = NULL;
  if (sparkle_kernel_compile(SOURCE, strlen(SOURCE), "saxpy", &saxpy) != SPARKLE_OK) return failed("compile");

  /* The index argument i is not passed: each of the N points has its own. */
  const int64_t extents[3] = {N, 1, 1};
  const size_t size = sizeof(sparkle_kernel_arg);
  const sparkle_kernel_arg args[] = {
      {.size = size, .type = SPARKLE_TYPE_INT32, .form = SPARKLE_ARG_SCALAR, .value.int32 = N},
      {.size = size, .type = SPARKLE_TYPE_REAL32, .form = SPARKLE_ARG_SCALAR, .value.real32 = 2.0f},
      {.size = size, .type = SPARKLE_TYPE_REAL32, .form = SPARKLE_ARG_INPUT, .address = x, .length = N},
      {.size = size, .type = SPARKLE_TYPE_REAL32, .form = SPARKLE_ARG_ARRAY, .address = y, .length = N},
  };
  if (sparkle_kernel_launch(device, saxpy, extents, args, 4) != SPARKLE_OK) return failed("launch");

  for (int i = 0; i < N; i++)
    if (y[i] != 2.0f * (float)i + 1.0f) return fprintf(stderr, "y[%d] is %g\n", i, y[i]), 1;
  printf("%d elements, verified\n", N);
  sparkle_kernel_destroy(saxpy);
  sparkle_device_close(device);
  return 0;
}
