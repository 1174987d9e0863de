/* The two loops of a scattering transform that lie between its Fourier transforms, and their
 * transposes; wavemill/folding.py has the formulas, and does the same with torch where this is
 * not built. Complex numbers are pairs, and filters hold every value twice, so that each inner
 * loop is a product of neighbours.
 *
 * This file includes itself once for each precision. Functions marked CLONED are compiled for
 * several processors and chosen when the library is loaded. */
#ifndef REAL

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Products that are summed at once at most. */
#define TERMS 256

/* Block (y, x) of a spectrum, the filters first..last-1 that reach it, and which term of the sums
 * the first of them is. Filters lie row by row, in a row term by term: other orders put what is
 * read together a multiple of 4096 bytes apart, where caches hold few lines. */
typedef struct { int64_t y, x, first, last, term; } Place;

/* Fields, filters, blocks, terms; rows and reals a row of a block; those of a spectrum. */
typedef struct { int64_t fields, count, places, terms, rows, columns, height, width; } Shape;

#define JOIN_(name, type) name##_##type
#define JOIN(name, type) JOIN_(name, type)
#define NAMED(name) JOIN(name, REAL)

#define REAL float
#define ROOT sqrtf
#define TINY FLT_MIN
#define HUGE_ FLT_MAX
#include "kernels.c"
#undef REAL
#undef ROOT
#undef TINY
#undef HUGE_

#define REAL double
#define ROOT sqrt
#define TINY DBL_MIN
#define HUGE_ DBL_MAX
#include "kernels.c"

#else /* one precision */

INLINE const REAL *NAMED(filter)(const REAL *filters, const Place *p, const Shape *s, int64_t l,
                                 int64_t row) {
    return filters + (row * s->terms + p->term + l - p->first) * s->columns;
}

INLINE int64_t NAMED(place)(const Place *p, const Shape *s, int64_t row) {
    return (p->y * s->rows + row) * s->width + p->x * s->columns;
}

/* out[i] = (out[i] +) a0[i] b0[i] + ..: long loops, which processors foresee */
INLINE void NAMED(four)(const REAL *const *a, const REAL *const *b, REAL *restrict out, int64_t n,
                        int more) {
    const REAL *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    const REAL *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
    for (int64_t i = 0; i < n; i++)
        out[i] = (more ? out[i] : 0) + a0[i] * b0[i] + a1[i] * b1[i] + a2[i] * b2[i] + a3[i] * b3[i];
}

INLINE void NAMED(one)(const REAL *a, const REAL *b, REAL *restrict out, int64_t n, int more) {
    for (int64_t i = 0; i < n; i++) out[i] = (more ? out[i] : 0) + a[i] * b[i];
}

/* out[i] = (out[i] +) sum over t of a[t][i] b[t][i] */
INLINE void NAMED(products)(const REAL *const *a, const REAL *const *b, int terms, REAL *out,
                            int64_t n, int more) {
    int t = 0;
    for (; t + 4 <= terms; t += 4) {
        if (more || t) NAMED(four)(a + t, b + t, out, n, 1);
        else NAMED(four)(a, b, out, n, 0);
    }
    for (; t < terms; t++) {
        if (more || t) NAMED(one)(a[t], b[t], out, n, 1);
        else NAMED(one)(a[0], b[0], out, n, 0);
    }
    if (!terms && !more)
        for (int64_t i = 0; i < n; i++) out[i] = 0;
}

/* folded[f][l][row] = sum over the blocks that filter l reaches of spectrum times filter */
CLONED static void NAMED(fold_row)(const REAL *spectra, const REAL *filters, const Place *places,
                                   const Shape *s, REAL *folded, int64_t row) {
    const REAL *psi[TERMS], *x[TERMS];
    for (int64_t f = 0; f < s->fields; f++)
        for (int64_t l = 0; l < s->count; l++) {
            REAL *out = folded + ((f * s->count + l) * s->rows + row) * s->columns;
            int terms = 0, more = 0;
            for (const Place *p = places; p < places + s->places; p++) {
                if (l < p->first || l >= p->last) continue;
                psi[terms] = NAMED(filter)(filters, p, s, l, row);
                x[terms++] = spectra + f * s->height * s->width + NAMED(place)(p, s, row);
                if (terms == TERMS) {
                    NAMED(products)(psi, x, terms, out, s->columns, more);
                    terms = 0, more = 1;
                }
            }
            if (terms || !more) NAMED(products)(psi, x, terms, out, s->columns, more);
        }
}

/* spectrum[f][block][row] = sum over the filters that reach it of folded times filter */
CLONED static void NAMED(unfold_row)(const REAL *folded, const REAL *filters, const Place *places,
                                     const Shape *s, REAL *spectra, int64_t row) {
    const REAL *psi[TERMS], *y[TERMS];
    for (int64_t f = 0; f < s->fields; f++)
        for (const Place *p = places; p < places + s->places; p++) {
            REAL *out = spectra + f * s->height * s->width + NAMED(place)(p, s, row);
            for (int64_t l = p->first; l < p->last; l += TERMS) {
                int terms = (int)(p->last - l < TERMS ? p->last - l : TERMS);
                for (int t = 0; t < terms; t++) {
                    psi[t] = NAMED(filter)(filters, p, s, l + t, row);
                    y[t] = folded + ((f * s->count + l + t) * s->rows + row) * s->columns;
                }
                NAMED(products)(psi, y, terms, out, s->columns, l > p->first);
            }
        }
}

/* A row is visited for all fields, so that its filters stay in the nearest caches. */
void NAMED(fold)(const REAL *spectra, const REAL *filters, const Place *places, const Shape *s,
                 REAL *folded, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < s->rows; row++)
        NAMED(fold_row)(spectra, filters, places, s, folded, row);
}

void NAMED(unfold)(const REAL *folded, const REAL *filters, const Place *places, const Shape *s,
                   REAL *spectra, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < s->rows; row++)
        NAMED(unfold_row)(folded, filters, places, s, spectra, row);
}

CLONED static void NAMED(modulus_of)(const REAL *z, REAL *size, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        size[i] = ROOT(z[2 * i] * z[2 * i] + z[2 * i + 1] * z[2 * i + 1] + TINY);
}

/* z g / |z|; the quotient is bounded, since it is large only where z is rounding, or 0 */
CLONED static void NAMED(slope_of)(const REAL *z, const REAL *gradient, REAL *slope, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        REAL re = z[2 * i], im = z[2 * i + 1];
        REAL ratio = gradient[i] / ROOT(re * re + im * im + TINY);
        ratio = ratio > HUGE_ ? HUGE_ : ratio < -HUGE_ ? -HUGE_ : ratio;
        slope[2 * i] = re * ratio;
        slope[2 * i + 1] = im * ratio;
    }
}

#define SLICE 4096

void NAMED(modulus)(const REAL *z, REAL *size, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += SLICE)
        NAMED(modulus_of)(z + 2 * i, size + i, n - i < SLICE ? n - i : SLICE);
}

void NAMED(modulus_slope)(const REAL *z, const REAL *gradient, REAL *slope, int64_t n,
                          int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += SLICE)
        NAMED(slope_of)(z + 2 * i, gradient + i, slope + 2 * i, n - i < SLICE ? n - i : SLICE);
}

#undef SLICE
#endif
