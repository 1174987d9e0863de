/* Phase harmonics of fields, their gradients, and products with filters: what
 * wavemill/moments/channels.py and boxes.py do with torch. */
#ifndef REAL

#include "kernels.h"

/* What this is compiled from, given by build.py: the loader refuses a library of other sources. */
const char *kernels_sources(void) { return KERNELS_SOURCES; }

#define LOOPS "fields.c"
#include "precisions.h"

#else /* one precision */

/* z at LANES points from one on, or at as many as are left. */
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

INLINE VEC NAMED(get_real)(const REAL *from, int64_t left) {
    REAL some[WIDTH / sizeof(REAL)] = {0};
    if (left < LANES) from = memcpy(some, from, left * sizeof(REAL));
    const VEC x = LOOSE(from);
    return SORT(x);
}

INLINE void NAMED(put_real)(VEC x, REAL *to, int64_t left) {
    const VEC sorted = SORT(x);
    if (left < LANES) memcpy(to, &sorted, left * sizeof(REAL));
    else LOOSE(to) = sorted;
}

/* out = r u^k, or, of k = 0, the real r. */
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

/* polar (+)= Re p - i k Im p, where p = a u^k. */
CLONED static void NAMED(some_polar)(const REAL *z, int64_t i, int64_t end, int64_t k,
                                     const REAL *a, int64_t fresh, REAL *polar) {
    VEC r;
    for (; i < end; i += LANES) {
        const COMPLEX u = NAMED(unit)(NAMED(get)(z + 2 * i, end - i), &r);
        const COMPLEX p = NAMED(times)(NAMED(get)(a + 2 * i, end - i), NAMED(power)(u, k));
        COMPLEX sum = fresh ? (COMPLEX){{0}, {0}} : NAMED(get)(polar + 2 * i, end - i);
        sum.re += p.re, sum.im -= (REAL)k * p.im;
        NAMED(put)(sum, polar + 2 * i, end - i);
    }
}

/* out = u (radial + polar) + more, of which any may be absent. */
CLONED static void NAMED(some_slopes)(const REAL *z, int64_t i, int64_t end, const REAL *radial,
                                      const REAL *polar, const REAL *more, REAL *out) {
    VEC r;
    for (; i < end; i += LANES) {
        const COMPLEX u = NAMED(unit)(NAMED(get)(z + 2 * i, end - i), &r);
        COMPLEX sum = polar ? NAMED(get)(polar + 2 * i, end - i) : (COMPLEX){{0}, {0}};
        if (radial) sum.re += NAMED(get_real)(radial + i, end - i);
        sum = NAMED(times)(u, sum);
        const COMPLEX rest = more ? NAMED(get)(more + 2 * i, end - i) : (COMPLEX){{0}, {0}};
        sum.re += rest.re, sum.im += rest.im;
        NAMED(put)(sum, out + 2 * i, end - i);
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

int NAMED(polar)(const REAL *z, const REAL *a, int64_t n, int64_t k, int64_t fresh, REAL *polar,
                 int threads) {
    SHARE(NAMED(some_polar)(z, i, end, k, a, fresh, polar), i, n, end, threads)
    return 1;
}

int NAMED(slopes)(const REAL *z, const REAL *radial, const REAL *polar, const REAL *more, int64_t n,
                  REAL *out, int threads) {
    SHARE(NAMED(some_slopes)(z, i, end, radial, polar, more, out), i, n, end, threads)
    return 1;
}

CLONED static void NAMED(some_products)(const REAL *x, const REAL *psi, int64_t i, int64_t end,
                                        int more, REAL *out) {
    for (; i < end; i++) {
        const REAL re = psi[2 * i] * x[2 * i], im = psi[2 * i] * x[2 * i + 1];
        out[2 * i] = more ? out[2 * i] + re : re, out[2 * i + 1] = more ? out[2 * i + 1] + im : im;
    }
}

/* out (field, channel, ...) = x (field, ...) times filters (channel, ...) of n points, complex with
 * nothing imaginary. */
int NAMED(filtered)(const REAL *x, const REAL *psi, int64_t fields, int64_t channels, int64_t n,
                    REAL *out, int threads) {
    for (int64_t f = 0; f < fields; f++)
        for (int64_t c = 0; c < channels; c++)
            SHARE(NAMED(some_products)(x + 2 * f * n, psi + 2 * c * n, i, end, 0,
                                       out + 2 * (f * channels + c) * n), i, n, end, threads)
    return 1;
}

/* The transpose: out (field, ...) = the sum over channels of x (field, channel, ...) times them. */
int NAMED(filtered_back)(const REAL *x, const REAL *psi, int64_t fields, int64_t channels, int64_t n,
                         REAL *out, int threads) {
    for (int64_t f = 0; f < fields; f++)
        for (int64_t c = 0; c < channels; c++)
            SHARE(NAMED(some_products)(x + 2 * (f * channels + c) * n, psi + 2 * c * n, i, end, c > 0,
                                       out + 2 * f * n), i, n, end, threads)
    return 1;
}

#undef SHARE
#endif
