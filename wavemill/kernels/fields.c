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

#define TILE 1024 /* points that stay in the nearest cache while filters pass */

/* out (channel, ...) = x times filters (channel, ...), real, at some of n points. */
CLONED static void NAMED(some_products)(const REAL *x, const REAL *psi, int64_t channels, int64_t n,
                                        int64_t first, int64_t end, REAL *out) {
    for (; first < end; first += TILE)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = first; i < first + TILE && i < end; i++) {
                out[2 * (c * n + i)] = psi[c * n + i] * x[2 * i];
                out[2 * (c * n + i) + 1] = psi[c * n + i] * x[2 * i + 1];
            }
}

/* The transpose: out = the sum over channels of x (channel, ...) times filters. */
CLONED static void NAMED(some_sums)(const REAL *x, const REAL *psi, int64_t channels, int64_t n,
                                    int64_t first, int64_t end, REAL *restrict out) {
    for (; first < end; first += TILE) {
        const int64_t stop = first + TILE < end ? first + TILE : end;
        for (int64_t i = 2 * first; i < 2 * stop; i++) out[i] = 0;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = first; i < stop; i++) {
                out[2 * i] += psi[c * n + i] * x[2 * (c * n + i)];
                out[2 * i + 1] += psi[c * n + i] * x[2 * (c * n + i) + 1];
            }
    }
}

/* out (field, channel, ...) = x (field, ...) times real filters (channel, ...) of n points. */
int NAMED(filtered)(const REAL *x, const REAL *psi, int64_t fields, int64_t channels, int64_t n,
                    REAL *out, int threads) {
    for (int64_t f = 0; f < fields; f++)
        SHARE(NAMED(some_products)(x + 2 * f * n, psi, channels, n, i, end,
                                   out + 2 * f * channels * n), i, n, end, threads)
    return 1;
}

/* The transpose: out (field, ...) = the sum over channels of x (field, channel, ...) times them. */
int NAMED(filtered_back)(const REAL *x, const REAL *psi, int64_t fields, int64_t channels, int64_t n,
                         REAL *out, int threads) {
    for (int64_t f = 0; f < fields; f++)
        SHARE(NAMED(some_sums)(x + 2 * f * channels * n, psi, channels, n, i, end, out + 2 * f * n),
              i, n, end, threads)
    return 1;
}

#undef TILE
#undef SHARE
#endif
