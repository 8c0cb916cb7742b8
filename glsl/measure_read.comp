// Measures the rate of reads, 16 bytes at a time; neighbouring threads read neighbouring elements.

layout(local_size_x = 256) in;

layout(std430, binding = 0) readonly buffer InputBuffer { vec4 input_data[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

void main() {
    vec4 sum = vec4(0.0);
    uint number = first + gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    for (uint i = 0u; i < 16u; ++i) {
        sum += input_data[((number * 16u + i) * 256u + gl_LocalInvocationID.x) % VECTORS];
    }
    // Never true for a buffer of zeros, but it keeps the compiler from removing the sums.
    if (dot(sum, sum) == -1.0) output_data[0] = sum.x;
}
