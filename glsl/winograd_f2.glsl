// F(2 x 2, 3 x 3) with the points 0, 1, -1 and infinity. src/cpu/winograd/form.rs derives the matrices.

const dvec3 G[4] = dvec3[4](dvec3(-1.0lf, 0.0lf, 0.0lf), dvec3(0.5lf, 0.5lf, 0.5lf), dvec3(0.5lf, -0.5lf, 0.5lf),
                            dvec3(0.0lf, 0.0lf, 1.0lf));

float[4] to_frequency(float d[4]) {
    return float[4](d[2] - d[0], d[2] + d[1], d[2] - d[1], d[3] - d[1]);
}

float[2] from_frequency(float t[4]) {
    return float[2](t[0] + (t[1] + t[2]), t[1] - t[2] + t[3]);
}
