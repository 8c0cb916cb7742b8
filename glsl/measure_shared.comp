// Measures the rate of reads from shared memory, 16 bytes at a time; neighbouring threads read neighbouring elements.

layout(local_size_x = 256) in;

layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
// Not a constant: thousands of unrolled steps would take a minute to compile and exceed the instruction cache.
layout(location = 2) uniform uint steps;

shared vec4 tile[1024];

void main() {
    uint at = gl_LocalInvocationID.x;
    // Unknown to the compiler.
    for (uint i = 0u; i < 4u; ++i) tile[at + 256u * i] = vec4(float(first));
    barrier();
    vec4 sums[8];
    for (int i = 0; i < 8; ++i) sums[i] = vec4(0.0);
    for (uint step = 0u; step < steps; ++step) {
        for (uint i = 0u; i < 8u; ++i) sums[i] += tile[(at + 128u * i) & 1023u];
        // A warp or more further, so that no step reads what the last one did.
        at += 64u;
    }
    vec4 sum = vec4(0.0);
    for (int i = 0; i < 8; ++i) sum += sums[i];
    // Never true, but it keeps the compiler from removing the sums.
    if (dot(sum, sum) == -1.0) output_data[0] = sum.x;
}
