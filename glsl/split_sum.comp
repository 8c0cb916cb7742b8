// The second pass of a product whose reduction was cut: the parts are added, always in the same order.
//
//     parts [part][n][row][pixel]  -->  output [n][row][pixel], with bias and ReLU

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { PIXELS parts[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { PIXELS output_data[]; };
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= PART_STRIDE / V) return;
    PIXELS sum = parts[index];
    for (int part = 1; part < SPLITS; ++part) sum += parts[part * (PART_STRIDE / V) + index];
#if BIAS
    sum += bias_data[index * V / OUT_STRIDE % ROWS];
#endif
#if RELU
    // Not max(sum, 0.0): that may turn NaN into 0 and hide it.
#if V == 4
    sum = mix(sum, vec4(0.0), lessThan(sum, vec4(0.0)));
#else
    sum = sum < 0.0 ? 0.0 : sum;
#endif
#endif
    output_data[index] = sum;
}
