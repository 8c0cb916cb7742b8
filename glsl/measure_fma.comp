// Measures the rate of multiply-adds: eight independent chains of vec4 per thread, in registers only.

layout(local_size_x = 512) in;

layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
// Not a constant: thousands of unrolled steps would take a minute to compile and exceed the instruction cache.
layout(location = 2) uniform uint steps;

void main() {
    vec4 sums[8];
    // Unknown to the compiler.
    float factor = 1.0 + float(first) * 1e-9;
    // All different: the compiler would compute equal ones once.
    for (int i = 0; i < 8; ++i) sums[i] = vec4(0.0, 1.0, 2.0, 3.0) + float(4 * i) + float(gl_LocalInvocationID.x);
    for (uint step = 0u; step < steps; ++step) {
        for (int i = 0; i < 8; ++i) sums[i] = sums[i] * factor + factor;
    }
    vec4 sum = vec4(0.0);
    for (int i = 0; i < 8; ++i) sum += sums[i];
    // Never true, but it keeps the compiler from removing the sums.
    if (dot(sum, sum) == -1.0) output_data[0] = sum.x;
}
