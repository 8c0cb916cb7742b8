// The second pass of a product with a split reduction: adds the parts, always in the same order.
//
//     parts [part][n][row][pixel]  -->  output [n][row][pixel], or [n][pixel][row] for both, with bias and ReLU; a matrix product: scaled, plus the old result

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer InputBuffer { PIXELS parts[]; };
layout(std430, binding = 2) writeonly buffer OutputBuffer { PIXELS output_data[]; };
#if OLD
layout(std430, binding = 3) readonly buffer OldBuffer { PIXELS old_data[]; };
#else
layout(std430, binding = 3) readonly buffer BiasBuffer { float bias_data[]; };
#endif

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
#if SCALED
layout(location = 2) uniform uint alpha_bits;
layout(location = 3) uniform uint beta_bits;
#endif

void main() {
    uint number = gl_WorkGroupID.x + GRID_X * gl_WorkGroupID.y;
    int index = int((first + number) * 64u + gl_LocalInvocationID.x);
    if (number >= count || index >= PART_STRIDE / V) return;
    PIXELS sum = parts[index];
    for (int part = 1; part < SPLITS; ++part) sum += parts[part * (PART_STRIDE / V) + index];
#if SCALED
    sum *= uintBitsToFloat(alpha_bits);
#endif
#if OLD
    sum += uintBitsToFloat(beta_bits) * old_data[index];
#endif
#if BIAS
    sum += bias_data[index * V / OUT_CHANNEL % ROWS];
#endif
#if RELU
#if V == 4
    sum = vec4(relu(sum.x), relu(sum.y), relu(sum.z), relu(sum.w));
#else
    sum = relu(sum);
#endif
#endif
#ifdef FUSED
    int row = index * V / OUT_CHANNEL % ROWS;
#if V == 4
    for (int e = 0; e < 4; ++e) sum[e] = FUSED(sum[e], row, index * V + e);
#else
    sum = FUSED(sum, row, index);
#endif
#endif
    output_data[index] = sum;
}
