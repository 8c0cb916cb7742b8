// ReLU: numbers below zero become 0; NaN and -0 stay. By the bits: a compiler may make max() of a comparison of floats, and max() may
// turn NaN into 0.
float relu(float value) {
    uint bits = floatBitsToUint(value);
    // From the smallest negative denormal to -infinity.
    return bits - 0x80000001u < 0x7f800000u ? 0.0 : value;
}
