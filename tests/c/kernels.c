/* Kernels from C: compiled, described, written as GLSL, refused; also from a thread with 64 KiB of stack. */
#define _POSIX_C_SOURCE 200809L
#include "new_api.h"

#include <pthread.h>

static const char SAXPY[] =
    "!@kernel(local_size_x=64)\n"
    "subroutine saxpy(i, n, a, x, y)\n"
    "  use iso_fortran_env, only: int32, real32\n"
    "  integer(int32), value :: i, n\n"
    "  real(real32), value :: a\n"
    "  real(real32), intent(in) :: x(0:n-1)\n"
    "  real(real32), intent(inout) :: y(0:n-1)\n"
    "  y(i) = a * x(i) + y(i)\n"
    "end subroutine\n";

static sparkle_kernel *compiled(void) {
  sparkle_kernel *kernel = NULL;
  OK(sparkle_kernel_compile(SAXPY, sizeof SAXPY - 1, NULL, &kernel));
  return kernel;
}

static void check_description(void) {
  sparkle_kernel *kernel = compiled();
  sparkle_kernel_info info = {.size = sizeof info};
  OK(sparkle_kernel_describe(kernel, &info));
  CHECK(strcmp(info.name, "saxpy") == 0 && info.dims == 1 && info.arguments == 5, "%s", info.name);
  static const char *const NAMES[] = {"i", "n", "a", "x", "y"};
  static const int SLOTS[] = {-1, -1, -1, 0, 1};
  for (int i = 0; i < info.arguments; i++) {
    sparkle_argument_info argument = {.size = sizeof argument};
    OK(sparkle_kernel_argument(kernel, (size_t)i, &argument));
    CHECK(strcmp(argument.name, NAMES[i]) == 0 && argument.slot == SLOTS[i], "argument %d: %s", i, argument.name);
    CHECK(argument.type == (i < 2 ? SPARKLE_TYPE_INT32 : SPARKLE_TYPE_REAL32), "argument %d", i);
  }
  OK(sparkle_kernel_destroy(kernel));
}

static void check_text(void) {
  sparkle_kernel *kernel = compiled();
  size_t length = 0, again = 0;
  OK(sparkle_kernel_source(kernel, SPARKLE_GLSL_430, SPARKLE_PARAMETERS_BUFFER, NULL, 0, &length));
  char *text = malloc(length + 1);
  CHECK(text != NULL, "%zu bytes", length);
  OK(sparkle_kernel_source(kernel, SPARKLE_GLSL_430, SPARKLE_PARAMETERS_BUFFER, text, length + 1, &again));
  CHECK(strlen(text) == length && again == length, "%zu and %zu", length, again);
  CHECK(strncmp(text, "#version 430", 12) == 0, "%s", text);
  OK(sparkle_kernel_diagnostics(kernel, text, 1, &length));
  CHECK(length == 0 && text[0] == '\0', "%s", text);
  free(text);
  OK(sparkle_kernel_destroy(kernel));
  sparkle_status status = sparkle_kernel_destroy(kernel);
  CHECK(status == SPARKLE_ERROR_INVALID_HANDLE, "%d", (int)status);
}

static void check_errors(void) {
  static const char WRONG[] =
      "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\nreal, intent(out) :: x\nx = y\nend subroutine\n";
  sparkle_kernel *kernel = NULL;
  sparkle_status status = sparkle_kernel_compile(WRONG, sizeof WRONG - 1, NULL, &kernel);
  CHECK(status == SPARKLE_ERROR_INVALID_ARGUMENT && kernel == NULL, "%d", (int)status);
  const char *error = sparkle_last_error();
  CHECK(strstr(error, "error[K206]") != NULL && strstr(error, "source:5:5") != NULL, "%s", error);
  status = sparkle_kernel_compile_file("no such file.f90", NULL, &kernel);
  CHECK(status == SPARKLE_ERROR_INVALID_ARGUMENT && kernel == NULL, "%d", (int)status);
  CHECK(strstr(sparkle_last_error(), "no such file.f90") != NULL, "%s", sparkle_last_error());
}

/* Expressions as deep as the compiler allows, and deeper. */
static void check_depth(void) {
  enum { HEAD = 200, MOST = 5000 };
  for (int depth = 10; depth <= MOST; depth *= 5) {
    char *source = malloc(2 * MOST + 2 * HEAD);
    CHECK(source != NULL, "a source");
    strcpy(source, "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\nreal, intent(out) :: x\nx = ");
    /* Lines have no limit in the kernel language. */
    for (int i = 0; i < depth; i++) strcat(source, "(");
    strcat(source, "1.0");
    for (int i = 0; i < depth; i++) strcat(source, ")");
    strcat(source, "\nend subroutine\n");
    sparkle_kernel *kernel = NULL;
    sparkle_status status = sparkle_kernel_compile(source, strlen(source), "f", &kernel);
    if (status == SPARKLE_OK) {
      size_t length = 0;
      OK(sparkle_kernel_source(kernel, SPARKLE_GLSL_430, SPARKLE_PARAMETERS_UNIFORM, NULL, 0, &length));
      OK(sparkle_kernel_destroy(kernel));
    } else {
      CHECK(strstr(sparkle_last_error(), "K008") != NULL, "%s", sparkle_last_error());
    }
    CHECK((status == SPARKLE_OK) == (depth < 100), "depth %d: %d", depth, (int)status);
    free(source);
  }
}

static void *all(void *unused) {
  (void)unused;
  check_description();
  check_text();
  check_errors();
  check_depth();
  return NULL;
}

int main(void) {
  check_description();
  puts("described");
  check_text();
  puts("written");
  check_errors();
  puts("refused");
  pthread_attr_t attributes;
  pthread_t thread;
  CHECK(pthread_attr_init(&attributes) == 0, "attributes");
  CHECK(pthread_attr_setstacksize(&attributes, 64 << 10) == 0, "64 KiB");
  CHECK(pthread_create(&thread, &attributes, all, NULL) == 0, "a thread");
  CHECK(pthread_join(thread, NULL) == 0, "its end");
  puts("from 64 KiB of stack");
  return 0;
}
