/* The reference interface's helpers, declared by the program itself, without sparkle.h. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <time.h>

#include "check.h"

extern void *posix_memalign_wrapper(size_t bytes);
extern void mm_prefetch_wrapper(const void *address, int hint);
extern void builtin_prefetch_wrapper(const void *address, int rw, int locality);
extern void prefetchnta_wrapper(const void *address);
extern void mm512_stream_ps_wrapper(float *dst, const float *src);
extern void mm256_stream_ps_wrapper(float *dst, const float *src);
extern void mm128_stream_ps_wrapper(float *dst, const float *src);
extern void sfence_wrapper(void);
extern int is_aligned_for_streaming(const void *address, size_t alignment);
extern uint64_t rdtsc_wrapper(void);
extern uint64_t rdtscp_wrapper(void);
extern uint64_t rdtsc_fenced(void);

typedef void stream(float *dst, const float *src);

static void check_stream(size_t lanes, stream *copy) {
  float *from = integers(1024, (unsigned)lanes), *to = posix_memalign_wrapper(1024 * sizeof(float));
  CHECK(to != NULL, "1024 floats");
  for (size_t i = 0; i < 1024; i++) to[i] = CANARY;
  for (size_t i = 0; i < 512; i += lanes) copy(to + i, from + i);
  sfence_wrapper();
  CHECK(memcmp(to, from, 512 * sizeof(float)) == 0, "%zu lanes", lanes);
  check_untouched("after the copied half", to + 512, 512);
  free(to);
  free(from);
}

static void check_clock(const char *name, uint64_t (*clock)(void)) {
  struct timespec pause = {0, 2000000};
  uint64_t before = clock();
  nanosleep(&pause, NULL);
  uint64_t after = clock();
  CHECK(after > before && after - before > 2000, "%s: %llu ticks in 2 ms", name, (unsigned long long)(after - before));
}

int main(void) {
  puts("memory");
  for (size_t bytes = 1; bytes < 1u << 22; bytes = bytes * 3 + 1) {
    unsigned char *memory = posix_memalign_wrapper(bytes);
    CHECK(memory != NULL && (uintptr_t)memory % 64 == 0, "%zu bytes", bytes);
    memset(memory, 0xA5, bytes);
    memory = realloc(memory, bytes * 2);
    CHECK(memory != NULL && memory[bytes - 1] == 0xA5, "%zu bytes", bytes);
    free(memory);
  }

  puts("prefetch");
  for (int hint = -1; hint < 5; hint++) {
    mm_prefetch_wrapper(&hint, hint);
    mm_prefetch_wrapper(NULL, hint);
    builtin_prefetch_wrapper(&hint, hint, hint);
    builtin_prefetch_wrapper(NULL, 0, hint);
  }
  prefetchnta_wrapper(NULL);

  puts("streams");
  check_stream(16, mm512_stream_ps_wrapper);
  check_stream(8, mm256_stream_ps_wrapper);
  check_stream(4, mm128_stream_ps_wrapper);

  puts("alignment");
  CHECK(is_aligned_for_streaming((void *)(uintptr_t)192, 64) == 1, "192");
  CHECK(is_aligned_for_streaming((void *)(uintptr_t)196, 64) == 0, "196");
  CHECK(is_aligned_for_streaming((void *)(uintptr_t)196, 4) == 1, "196");
  CHECK(is_aligned_for_streaming((void *)(uintptr_t)196, 0) == 0, "of 0");

  puts("ticks");
  check_clock("rdtsc_wrapper", rdtsc_wrapper);
  check_clock("rdtscp_wrapper", rdtscp_wrapper);
  check_clock("rdtsc_fenced", rdtsc_fenced);
  return 0;
}
