/* Phase harmonics of fields, their gradients, and products with filters: what
 * wavemill/moments/channels.py and boxes.py do with torch. */
#ifndef REAL

#include "kernels.h"

/* The sources' fingerprint, given by build.py: the loader refuses a library of other sources. */
const char *kernels_sources(void) { return KERNELS_SOURCES; }

#define LOOPS "fields.c"
#include "precisions.h"

#else /* one precision */

/* z at LANES consecutive points, or at as many as are left. */
INLINE COMPLEX NAMED(get)(const REAL *from, int64_t left) {
    REAL some[2 * WIDTH / sizeof(REAL)] = {0};
    if (left < LANES) from = memcpy(some, from, 2 * left * sizeof(REAL));
    const VEC a = LOOSE(from), b = LOOSE(from + LANES);
    return (COMPLEX){EVEN(a, b), ODD(a, b)};
}

INLINE void NAMED(put)(COMPLEX z, REAL *to, int64_t left) {
    REAL some[2 * WIDTH / sizeof(REAL)], *p = left < LANES ? some : to;
    LOOSE(p) = LOW(z.re, z.im), LOOSE(p + LANES) = HIGH(z.re, z.im);
    if (left < LANES) memcpy(to, some, 2 * left * sizeof(REAL));
}

INLINE void NAMED(put_real)(VEC x, REAL *to, int64_t left) {
    const VEC sorted = SORT(x);
    if (left < LANES) memcpy(to, &sorted, left * sizeof(REAL));
    else LOOSE(to) = sorted;
}

/* out = r u^k, or the real r for k = 0. */
CLONED static void NAMED(some_harmonics)(const REAL *z, int64_t i, int64_t end, int64_t k,
                                         REAL *out) {
    VEC r;
    for (; i < end; i += LANES) {
        const COMPLEX u = NAMED(unit)(NAMED(get)(z + 2 * i, end - i), &r);
        if (k) {
            const COMPLEX v = NAMED(power)(u, k);
            NAMED(put)((COMPLEX){r * v.re, r * v.im}, out + 2 * i, end - i);
        } else {
            NAMED(put_real)(r, out + i, end - i);
        }
    }
}

/* polar (+)= Re p - i k Im p, where p = a u^k, or conj(a) u^k. */
CLONED static void NAMED(some_polar)(const REAL *z, int64_t i, int64_t end, int64_t k,
                                     const REAL *a, int64_t conjugate, int64_t fresh, REAL *polar) {
    const REAL sign = conjugate ? -1 : 1;
    VEC r;
    for (; i < end; i += LANES) {
        const COMPLEX u = NAMED(unit)(NAMED(get)(z + 2 * i, end - i), &r);
        COMPLEX p = NAMED(get)(a + 2 * i, end - i);
        p.im *= sign;
        p = NAMED(times)(p, NAMED(power)(u, k));
        COMPLEX sum = fresh ? (COMPLEX){{0}, {0}} : NAMED(get)(polar + 2 * i, end - i);
        sum.re += p.re, sum.im -= (REAL)k * p.im;
        NAMED(put)(sum, polar + 2 * i, end - i);
    }
}

#define SHARE(work, i, n, end, threads)                                                      \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1 && n > 1 << 14)")         \
    for (int64_t part = 0; part < threads; part++) {                                         \
        const int64_t i = n * part / threads / LANES * LANES;                                \
        const int64_t end = part + 1 < threads ? n * (part + 1) / threads / LANES * LANES : n; \
        work;                                                                                \
    }

int NAMED(harmonics)(const REAL *z, int64_t n, int64_t k, REAL *out, int threads) {
    SHARE(NAMED(some_harmonics)(z, i, end, k, out), i, n, end, threads)
    return 1;
}

int NAMED(polar)(const REAL *z, const REAL *a, int64_t conjugate, int64_t n, int64_t k,
                 int64_t fresh, REAL *polar, int threads) {
    SHARE(NAMED(some_polar)(z, i, end, k, a, conjugate, fresh, polar), i, n, end, threads)
    return 1;
}

/* Where a row of a box lies among `height` rows: negative frequencies are the last of either. */
INLINE int64_t NAMED(row)(int64_t y, int64_t rows, int64_t height) {
    return y > rows / 2 ? y + height - rows : y;
}

/* Where each half of a row of a box begins, and how many numbers it has. */
#define HALVES(at, count, columns)                                                             \
    for (int64_t half = 0, at = 0, count = columns / 2 + 1; half < 2;                          \
         at = count, count = columns - count, half++)

/* out (channel, y, x) = a row of x, `from`, times filters (channel, y, x), real. */
CLONED static void NAMED(some_products)(const REAL *from, int64_t width, const REAL *psi,
                                        int64_t channels, int64_t points, int64_t columns,
                                        REAL *out) {
    HALVES(at, count, columns) {
        const REAL *restrict x = from + 2 * (at + (half ? width - columns : 0));
        for (int64_t c = 0; c < channels; c++) {
            const REAL *restrict p = psi + c * points + at;
            REAL *restrict to = out + 2 * (c * points + at);
            for (int64_t i = 0; i < count; i++) {
                to[2 * i] = p[i] * x[2 * i];
                to[2 * i + 1] = p[i] * x[2 * i + 1];
            }
        }
    }
}

/* The transpose: a row `to` += the sum over channels of x (channel, y, x) times filters. */
CLONED static void NAMED(some_sums)(const REAL *x, const REAL *psi, int64_t channels,
                                    int64_t points, int64_t columns, REAL *to, int64_t width) {
    HALVES(at, count, columns) {
        REAL *restrict sum = to + 2 * (at + (half ? width - columns : 0));
        for (int64_t c = 0; c < channels; c++) {
            const REAL *restrict p = psi + c * points + at;
            const REAL *restrict of = x + 2 * (c * points + at);
            for (int64_t i = 0; i < count; i++) {
                sum[2 * i] += p[i] * of[2 * i];
                sum[2 * i + 1] += p[i] * of[2 * i + 1];
            }
        }
    }
}

/* Each row of a box in each field's spectrum: the field, the row in the box, and in the field. */
#define EACH_ROW(work, f, y, place)                                                            \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1 && fields * points > 1 << 12)") \
    for (int64_t n = 0; n < fields * rows; n++) {                                              \
        const int64_t f = n / rows, y = n % rows;                                              \
        const int64_t place = 2 * (f * height + NAMED(row)(y, rows, height)) * width;          \
        work;                                                                                  \
    }

/* out (field, channel, y, x) in a box = x (field, y, x) in a larger one, times filters. */
int NAMED(filtered)(const REAL *x, int64_t height, int64_t width, const REAL *psi, int64_t fields,
                    int64_t channels, int64_t rows, int64_t columns, REAL *out, int threads) {
    const int64_t points = rows * columns;
    EACH_ROW(NAMED(some_products)(x + place, width, psi + y * columns, channels, points, columns,
                                  out + 2 * (f * channels * points + y * columns)), f, y, place)
    return 1;
}

/* The transpose: out (field, y, x) += sums over channels of x (field, channel, y, x) times them. */
int NAMED(filtered_back)(const REAL *x, int64_t height, int64_t width, const REAL *psi,
                         int64_t fields, int64_t channels, int64_t rows, int64_t columns, REAL *out,
                         int threads) {
    const int64_t points = rows * columns;
    EACH_ROW(NAMED(some_sums)(x + 2 * (f * channels * points + y * columns), psi + y * columns,
                              channels, points, columns, out + place, width), f, y, place)
    return 1;
}

#undef EACH_ROW
#undef HALVES
#undef SHARE
#endif
