// How fast multiply-adds go: eight independent chains of four a thread, from registers only.

layout(local_size_x = 512) in;

layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
// Not a constant: thousands of steps unrolled would take a minute to compile and fit no instruction cache.
layout(location = 2) uniform uint steps;

void main() {
    vec4 sums[8];
    // Not known to the compiler.
    float factor = 1.0 + float(first) * 1e-9;
    // All different, or the compiler computes equal ones once.
    for (int i = 0; i < 8; ++i) sums[i] = vec4(0.0, 1.0, 2.0, 3.0) + float(4 * i) + float(gl_LocalInvocationID.x);
    for (uint step = 0u; step < steps; ++step) {
        for (int i = 0; i < 8; ++i) sums[i] = sums[i] * factor + factor;
    }
    vec4 sum = vec4(0.0);
    for (int i = 0; i < 8; ++i) sum += sums[i];
    // Never so; but the sums must not be thrown away.
    if (dot(sum, sum) == -1.0) output_data[0] = sum.x;
}
