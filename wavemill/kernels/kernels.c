/* Loops that torch has no operation for. First the two of a scattering transform that lie between its Fourier transforms, and their
 * transposes; wavemill/folding.py has the formulas, and does the same with torch where this is
 * not built. Then sparse codes and their gradients, which wavemill/dictionaries/active_sets.py explains. Complex numbers are pairs, and filters hold every value twice, so that each inner
 * loop is a product of neighbours.
 *
 * This file includes itself once for each precision. Functions marked CLONED are compiled for
 * several processors and chosen when the library is loaded. */
#ifndef REAL

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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

/* Signals, their channels, atoms, iterations, and whether codes are positive. */
typedef struct { int64_t rows, channels, atoms, iterations, positive; } Coding;

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

/* A code: atoms in ascending order, and their values. */
typedef struct { int64_t count; int32_t *atoms; REAL *values; } NAMED(Code);

#define STRIP 512 /* columns of v at a time: they stay in the nearest cache */
#define LOOK 32   /* of which a threshold is looked for together */
#define SUMS 16

/* out += a x */
INLINE void NAMED(add)(REAL a, const REAL *restrict x, REAL *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += a * x[i];
}

INLINE REAL NAMED(dot)(const REAL *x, const REAL *y, int64_t n) {
    REAL parts[SUMS] = {0}, total = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) parts[j] += x[i + j] * y[i + j];
    for (; i < n; i++) total += x[i] * y[i];
    for (int j = 0; j < SUMS; j++) total += parts[j];
    return total;
}

/* Appends what of v[first..first+n) exceeds the threshold. */
INLINE void NAMED(exceeding)(const REAL *v, int64_t first, int64_t n, REAL threshold, int positive,
                             NAMED(Code) *z) {
    for (int64_t i = 0; i < n; i += LOOK) {
        int64_t stop = i + LOOK < n ? i + LOOK : n;
        int any = 0;
        for (int64_t j = i; j < stop; j++)
            any |= (v[j] > threshold) | (!positive & (v[j] < -threshold));
        for (int64_t j = i; any && j < stop; j++) {
            int below = !positive && v[j] < -threshold;
            if (!below && !(v[j] > threshold)) continue;
            z->atoms[z->count] = (int32_t)(first + j);
            z->values[z->count++] = below ? v[j] + threshold : v[j] - threshold;
        }
    }
}

/* z_n from z_{n-1}: thresholded v = W^T beta + sum over the code of values times rows of M */
INLINE void NAMED(iterate)(const REAL *analysed, const REAL *M, const Coding *s, REAL threshold,
                           const NAMED(Code) *before, NAMED(Code) *z) {
    REAL v[STRIP];
    z->count = 0;
    for (int64_t first = 0; first < s->atoms; first += STRIP) {
        int64_t n = s->atoms - first < STRIP ? s->atoms - first : STRIP, k = 0;
        memcpy(v, analysed + first, n * sizeof(REAL));
        const REAL *table = M + first;
        for (; k + 4 <= before->count; k += 4) {
            const REAL *a = before->values + k;
            const REAL *r0 = table + before->atoms[k] * s->atoms,
                       *r1 = table + before->atoms[k + 1] * s->atoms,
                       *r2 = table + before->atoms[k + 2] * s->atoms,
                       *r3 = table + before->atoms[k + 3] * s->atoms;
            for (int64_t i = 0; i < n; i++)
                v[i] += a[0] * r0[i] + a[1] * r1[i] + a[2] * r2[i] + a[3] * r3[i];
        }
        for (; k < before->count; k++)
            NAMED(add)(before->values[k], table + before->atoms[k] * s->atoms, v, n);
        NAMED(exceeding)(v, first, n, threshold, (int)s->positive, z);
    }
}

/* Codes of one signal after each iteration. */
CLONED static void NAMED(code)(const REAL *analysed, const REAL *M, const REAL *thresholds,
                               const Coding *s, NAMED(Code) *path, int kept) {
    NAMED(Code) none = {0, NULL, NULL};
    for (int64_t n = 0; n < s->iterations; n++)
        NAMED(iterate)(analysed, M, s, thresholds[n], n ? path + (n - 1) % kept : &none,
                       path + n % kept);
}

static NAMED(Code) *NAMED(new_path)(int64_t length, int64_t atoms) {
    NAMED(Code) *path = malloc(length * (sizeof(*path) + atoms * (sizeof(REAL) + sizeof(int32_t))));
    if (!path) return NULL;
    REAL *values = (REAL *)(path + length);
    int32_t *places = (int32_t *)(values + length * atoms);
    for (int64_t n = 0; n < length; n++)
        path[n] = (NAMED(Code)){0, places + n * atoms, values + n * atoms};
    return path;
}

/* codes (row, atom), which are 0 to begin with; returns whether there was memory */
int NAMED(istc)(const REAL *analysed, const REAL *M, const REAL *thresholds, const Coding *s,
                REAL *codes, int threads) {
    int good = 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        NAMED(Code) *path = NAMED(new_path)(2, s->atoms);
        if (!path) good = 0;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < s->rows; row++) {
            if (!path) continue;
            NAMED(code)(analysed + row * s->atoms, M, thresholds, s, path, 2);
            const NAMED(Code) *z = path + (s->iterations - 1) % 2;
            for (int64_t k = 0; k < z->count; k++)
                codes[row * s->atoms + z->atoms[k]] = z->values[k];
        }
        free(path);
    }
    return good;
}

/* Where the gradients of one thread go: (atom, channel) twice, and one number an iteration. */
typedef struct { REAL *W, *D, *thresholds; } NAMED(Slopes);

/* g, on the support of z, to g on that of the code before: see wavemill/dictionaries/active_sets.py */
CLONED static void NAMED(back)(const REAL *beta, const REAL *D, const REAL *W, const Coding *s,
                               const NAMED(Code) *z, const NAMED(Code) *before, REAL *g, REAL *rest,
                               NAMED(Slopes) to, REAL *d_beta, REAL *spare) {
    const int64_t C = s->channels;
    REAL *q = spare, *r = spare + C;
    memset(q, 0, C * sizeof(REAL));
    memcpy(r, beta, C * sizeof(REAL));
    for (int64_t k = 0; k < z->count; k++) {
        NAMED(add)(g[k], W + z->atoms[k] * C, q, C);
        *to.thresholds -= z->values[k] > 0 ? g[k] : -g[k];
    }
    for (int64_t k = 0; before && k < before->count; k++)
        NAMED(add)(-before->values[k], D + before->atoms[k] * C, r, C);
    for (int64_t k = 0; k < z->count; k++) NAMED(add)(g[k], r, to.W + z->atoms[k] * C, C);
    NAMED(add)(1, q, d_beta, C);
    for (int64_t k = 0, l = 0; before && k < before->count; k++) {
        int32_t atom = before->atoms[k];
        NAMED(add)(-before->values[k], q, to.D + atom * C, C);
        while (l < z->count && z->atoms[l] < atom) l++;
        rest[k] = (l < z->count && z->atoms[l] == atom ? g[l] : 0) - NAMED(dot)(D + atom * C, q, C);
    }
}

/* Gradients given that of the codes; W and D (thread, atom, channel), thresholds (thread, n). */
int NAMED(istc_gradients)(const REAL *analysed, const REAL *beta, const REAL *M, const REAL *D,
                          const REAL *W, const REAL *thresholds, const REAL *gradient,
                          const Coding *s, REAL *d_beta, REAL *d_W, REAL *d_D, REAL *d_thresholds,
                          int threads) {
    const int64_t K = s->atoms, C = s->channels, share = (s->rows + threads - 1) / threads;
    int good = 1;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t part = 0; part < threads; part++) {
        NAMED(Code) *path = NAMED(new_path)(s->iterations, K);
        REAL *spare = malloc((2 * K + 2 * C) * sizeof(REAL));
        if (!path || !spare) good = 0;
        int64_t stop = (part + 1) * share < s->rows ? (part + 1) * share : s->rows;
        for (int64_t row = part * share; path && spare && row < stop; row++) {
            NAMED(code)(analysed + row * K, M, thresholds, s, path, (int)s->iterations);
            REAL *g = spare, *rest = spare + K;
            const NAMED(Code) *last = path + s->iterations - 1;
            for (int64_t k = 0; k < last->count; k++) g[k] = gradient[row * K + last->atoms[k]];
            for (int64_t n = s->iterations - 1; n >= 0; n--) {
                NAMED(Slopes) to = {d_W + part * K * C, d_D + part * K * C,
                                    d_thresholds + part * s->iterations + n};
                NAMED(back)(beta + row * C, D, W, s, path + n, n ? path + n - 1 : NULL, g, rest, to,
                            d_beta + row * C, spare + 2 * K);
                REAL *swap = g;
                g = rest, rest = swap;
            }
        }
        free(path), free(spare);
    }
    return good;
}

#undef STRIP
#undef LOOK
#undef SUMS
#endif
