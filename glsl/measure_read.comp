// How fast a buffer is read, 16 bytes a time, neighbours by neighbours.

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
    // Never so for a buffer of zeros; but the sums must not be thrown away.
    if (dot(sum, sum) == -1.0) output_data[0] = sum.x;
}
