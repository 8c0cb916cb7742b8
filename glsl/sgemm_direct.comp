// sgemm_direct_16x16: fallback kernel for every matrix product, C = alpha op(A) op(B) + beta C. Strides express all layouts.
//
//             n
//         +---+---+---+        A workgroup computes one 16 x 16 tile of C, an invocation one element. Both operands
//       k | B |   |   |        are staged in shared memory, 16 steps of k at a time:
//         +---+---+---+
//      k                           for each 16 steps of k:   a_tile <- A, b_tile <- B   (zero outside the matrices)
//     +--+ +---+---+---+                                     barrier
//   m |A | | C |   |   |                                     sum += a_tile[row] . b_tile[column]
//     +--+ +---+---+---+                                     barrier
//     |  | |   |   |   |
//
// op(A)(i, p) is at i*a_row + p*a_col, op(B)(p, j) at p*b_row + j*b_col, the old C(i, j) at i*c_row + j*c_col. The
// result is a dense matrix of its own, at i*out_row + j*out_col, so gaps between the lines of the caller's C are never
// written. The old C is read only if beta is not 0.
//
// With PART, a pass sums only the steps of k from `depth_begin` to `depth_end` and continues the sum that the previous pass
// stored; the last pass scales. So all passes together sum in the order of a single pass.
//
// Any grid covers all tiles: groups are numbered over x, y and z, and each takes every `groups`-th tile. `first` and
// `count` (in tiles) cut long work into several dispatches. Both 0 means all work. A matrix has fewer than 2^31 elements.

layout(local_size_x = 16, local_size_y = 16, local_size_z = 1) in;

layout(std430, binding = 0) readonly buffer ABuffer { float a_data[]; };
layout(std430, binding = 1) readonly buffer BBuffer { float b_data[]; };
#if PART
layout(std430, binding = 2) buffer OutputBuffer { float output_data[]; };
#else
layout(std430, binding = 2) writeonly buffer OutputBuffer { float output_data[]; };
#endif
layout(std430, binding = 3) readonly buffer ParamBuffer {
    uint M, N, K;
    uint a_row, a_col, b_row, b_col, c_row, c_col, out_row, out_col;
    float alpha, beta;
};
layout(std430, binding = 4) readonly buffer CBuffer { float c_data[]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
#if PART
layout(location = 2) uniform uint depth_begin;
layout(location = 3) uniform uint depth_end;
#else
const uint depth_begin = 0u;
#define depth_end K
#endif

shared float a_tile[16][16];
// One more column, so that the 16 rows do not all start in the same bank.
shared float b_tile[16][17];

void main() {
    uint columns = (N + 15u) / 16u;
    uint total = (M + 15u) / 16u * columns;
    uint end = count == 0u ? total : min(total, first + count);
    uint group = gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
    uint groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z;
    if (first >= end || group >= end - first) return;
    uint x = gl_LocalInvocationID.x, y = gl_LocalInvocationID.y;
    uint tile = first + group;
    // The same for all invocations of a group, as barrier() requires.
    for (;;) {
        uint i = tile / columns * 16u + y, j = tile % columns * 16u + x;
        float sum = 0.0;
#if PART
        if (depth_begin > 0u && i < M && j < N) sum = output_data[i * out_row + j * out_col];
#endif
        for (uint p = depth_begin; p < depth_end; p += 16u) {
            a_tile[y][x] = i < M && p + x < depth_end ? a_data[i * a_row + (p + x) * a_col] : 0.0;
            b_tile[y][x] = j < N && p + y < depth_end ? b_data[(p + y) * b_row + j * b_col] : 0.0;
            barrier();
            // Stops at the end: a padding zero times an infinity of the other operand would be NaN.
            uint depth = min(16u, depth_end - p);
            for (uint d = 0u; d < depth; ++d) sum += a_tile[y][d] * b_tile[d][x];
            barrier();
        }
        if (i < M && j < N) {
            if (depth_end == K) {
                sum *= alpha;
                if (beta != 0.0) sum += beta * c_data[i * c_row + j * c_col];
#ifdef FUSED
                sum = FUSED(sum, i, i * c_row + j * c_col);
#endif
            }
            output_data[i * out_row + j * out_col] = sum;
        }
        if (groups >= end - tile) return;
        tile += groups;
    }
}
