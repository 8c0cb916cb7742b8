// F(4 x 4, 3 x 3) with the points 0, 1, -1, 2, -1/2 and infinity. src/cpu/winograd/form.rs derives the matrices.

const dvec3 G[6] = dvec3[6](dvec3(1.0lf, 0.0lf, 0.0lf), dvec3(-1.0lf, -1.0lf, -1.0lf) / 3.0lf,
                            dvec3(1.0lf, -1.0lf, 1.0lf) / 3.0lf, dvec3(1.0lf, 2.0lf, 4.0lf) / 15.0lf,
                            dvec3(-16.0lf, 8.0lf, -4.0lf) / 15.0lf, dvec3(0.0lf, 0.0lf, 1.0lf));

float[6] to_frequency(float d[6]) {
    float e0 = d[2] - d[0], e1 = d[3] - d[1], e2 = d[4] - d[2], e3 = d[5] - d[3];
    float even = e2 - 1.5 * d[3], odd = e1 - 1.5 * d[2];
    return float[6](e2 - 1.5 * e1 - e0, even + odd, even - odd, e2 + 0.5 * e1, e2 - 2.0 * e1, e3 - 1.5 * e2 - e1);
}

float[4] from_frequency(float t[6]) {
    float sum = t[1] + t[2], difference = t[1] - t[2];
    return float[4](t[0] + sum + (t[3] + t[4]), difference + 2.0 * t[3] - 0.5 * t[4], sum + 4.0 * t[3] + 0.25 * t[4],
                    difference + 8.0 * t[3] - 0.125 * t[4] + t[5]);
}
