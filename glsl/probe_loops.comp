#version 430 core

// probe_loops: counts the iterations of all loops of an invocation. Some drivers end loops early, without an error.
//
// Three nested loops, as in the sum of a convolution, and a value that a compiler can only compute by executing every iteration.

layout(local_size_x = 1, local_size_y = 1, local_size_z = 1) in;

layout(std430, binding = 2) writeonly buffer OutputBuffer { uint output_data[2]; };

layout(location = 0) uniform uint first;
layout(location = 1) uniform uint count;
layout(location = 2) uniform uint outer;
layout(location = 3) uniform uint middle;
layout(location = 4) uniform uint inner;

void main() {
    uint value = 1u;
    uint made = 0u;
    for (uint i = 0u; i < outer; ++i) {
        for (uint j = 0u; j < middle; ++j) {
            for (uint k = 0u; k < inner; ++k) {
                value = value * 1664525u + 1013904223u;
                ++made;
            }
        }
    }
    output_data[0] = value;
    output_data[1] = made;
}
