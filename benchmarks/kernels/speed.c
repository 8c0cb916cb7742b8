/* Kernels of the kernel language on resident buffers: saxpy and a sum by their bandwidth, a product beside sparkle_sgemm.
 *
 *   cc -O2 benchmarks/kernels/speed.c -Iinclude -Ltarget/release -lsparkle -o speed
 *   ./speed gl:0 [benchmarks/kernels/speed.f90]
 *
 * Each figure is the best of many launches back to back, by the time of the kernel. Results are checked.
 */
#include "sparkle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 60, SIDE = 4096, POINTS = 1 << 27, TERMS = 100000000 };

static sparkle_device *device;

static void check(sparkle_status status, const char *what) {
    if (status != SPARKLE_OK) {
        fprintf(stderr, "%s: %s\n", what, sparkle_last_error());
        exit(1);
    }
}

static sparkle_kernel_arg argument(int32_t type, int32_t form) {
    sparkle_kernel_arg arg;
    memset(&arg, 0, sizeof arg);
    arg.size = sizeof arg;
    arg.type = type;
    arg.form = form;
    return arg;
}

static sparkle_kernel_arg integer(int32_t value) {
    sparkle_kernel_arg arg = argument(SPARKLE_TYPE_INT32, SPARKLE_ARG_SCALAR);
    arg.value.int32 = value;
    return arg;
}

static sparkle_kernel_arg real(float value) {
    sparkle_kernel_arg arg = argument(SPARKLE_TYPE_REAL32, SPARKLE_ARG_SCALAR);
    arg.value.real32 = value;
    return arg;
}

static sparkle_kernel_arg resident(sparkle_buffer *buffer, size_t length) {
    sparkle_kernel_arg arg = argument(SPARKLE_TYPE_REAL32, SPARKLE_ARG_BUFFER);
    arg.buffer = buffer;
    arg.length = length;
    return arg;
}

static sparkle_kernel_arg result(float *value) {
    sparkle_kernel_arg arg = argument(SPARKLE_TYPE_REAL32, SPARKLE_ARG_ARRAY);
    arg.address = value;
    arg.length = 1;
    return arg;
}

/* A buffer with the values 0 to period - 1 in turn, less `below`. */
static sparkle_buffer *filled(size_t length, int period, int below) {
    float *values = malloc(length * sizeof *values);
    sparkle_buffer *buffer;
    if (!values) exit(1);
    for (size_t i = 0; i < length; i++) values[i] = (float)((int)(i % (size_t)period) - below);
    check(sparkle_buffer_create(device, SPARKLE_TYPE_REAL32, length, &buffer), "buffer");
    check(sparkle_buffer_write(buffer, 0, values, length), "write");
    free(values);
    return buffer;
}

static sparkle_kernel *compiled(const char *file, const char *name) {
    sparkle_kernel *kernel;
    check(sparkle_kernel_compile_file(file, name, &kernel), name);
    return kernel;
}

static double last_ms(void) {
    sparkle_timing timing;
    timing.size = sizeof timing;
    check(sparkle_last_timing(&timing), "timing");
    return timing.kernel_ms;
}

static double best_launch(sparkle_kernel *kernel, int64_t x, int64_t y, const sparkle_kernel_arg *args, size_t count) {
    int64_t extents[3] = {x, y, 1};
    double best = 1e99;
    for (int round = 0; round < ROUNDS; round++) {
        check(sparkle_kernel_launch(device, kernel, extents, args, count), "launch");
        double ms = last_ms();
        if (ms < best) best = ms;
    }
    return best;
}

static double best_sgemm(sparkle_buffer *a, sparkle_buffer *b, sparkle_buffer *c) {
    sparkle_gemm_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.size = sizeof desc;
    desc.layout = SPARKLE_COL_MAJOR;
    desc.trans_a = desc.trans_b = SPARKLE_NO_TRANS;
    desc.m = desc.n = desc.k = desc.lda = desc.ldb = desc.ldc = SIDE;
    desc.alpha = 1;
    double best = 1e99;
    for (int round = 0; round < ROUNDS; round++) {
        check(sparkle_sgemm_buffers(device, &desc, a, 0, b, 0, c, 0), "sgemm");
        double ms = last_ms();
        if (ms < best) best = ms;
    }
    return best;
}

int main(int count, char **words) {
    const char *file = count > 2 ? words[2] : "benchmarks/kernels/speed.f90";
    check(sparkle_device_open(count > 1 ? words[1] : "auto", &device), "device");
    /* Small integers, so that all results are exact, also after ROUNDS launches. */
    sparkle_buffer *x = filled(POINTS, 7, 3), *y = filled(POINTS, 5, 0);

    sparkle_kernel_arg saxpy[] = {integer(POINTS), real(1), resident(x, POINTS), resident(y, POINTS)};
    double ms = best_launch(compiled(file, "saxpy"), POINTS, 1, saxpy, 4);
    float *values = malloc((size_t)POINTS * sizeof *values);
    if (!values) exit(1);
    check(sparkle_buffer_read(y, 0, values, POINTS), "read");
    for (int i = 0; i < POINTS; i++) {
        if (values[i] != (float)(i % 5 + ROUNDS * (i % 7 - 3))) {
            fprintf(stderr, "saxpy: element %d is %g\n", i, values[i]);
            return 1;
        }
    }
    free(values);
    printf("saxpy of 2^27: %.3f ms, %.0f GB/s\n", ms, 12.0 * POINTS / ms * 1e-6);

    float sum = 0;
    sparkle_kernel_arg total[] = {integer(TERMS), resident(x, TERMS), result(&sum)};
    ms = best_launch(compiled(file, "total"), TERMS, 1, total, 3);
    long expected = 0;
    for (int i = 0; i < TERMS; i++) expected += i % 7 - 3;
    if (sum != (float)(ROUNDS * expected)) {
        fprintf(stderr, "the sum is %g, not %ld\n", sum, ROUNDS * expected);
        return 1;
    }
    printf("sum of 10^8: %.3f ms, %.0f GB/s\n", ms, 4.0 * TERMS / ms * 1e-6);

    size_t area = (size_t)SIDE * SIDE;
    sparkle_buffer *a = filled(area, 11, 5), *b = filled(area, 9, 4), *c = filled(area, 1, 0), *d = filled(area, 1, 0);
    sparkle_kernel_arg product[] = {integer(SIDE),     integer(SIDE),     integer(SIDE),
                                    resident(a, area), resident(b, area), resident(c, area)};
    double ours = best_sgemm(a, b, d);
    ms = best_launch(compiled(file, "sgemm_registers"), SIDE / 256 * 16, SIDE / 128 * 16, product, 6);
    float *left = malloc(area * sizeof *left), *right = malloc(area * sizeof *right);
    if (!left || !right) exit(1);
    check(sparkle_buffer_read(c, 0, left, area), "read");
    check(sparkle_buffer_read(d, 0, right, area), "read");
    /* Sums of small integers are exact in any order. */
    if (memcmp(left, right, area * sizeof *left) != 0) {
        fprintf(stderr, "the products differ\n");
        return 1;
    }
    double flops = 2.0 * SIDE * area;
    printf("product of 4096: %.3f ms, %.1f TFLOPS; sparkle_sgemm %.3f ms, %.1f TFLOPS: %.3f of it\n", ms,
           flops / ms * 1e-9, ours, flops / ours * 1e-9, ours / ms);
    return 0;
}
