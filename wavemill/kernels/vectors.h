/* Vectors of one precision, wherever they lie in memory, and complex numbers in two of them.
 * Included once for each precision of REAL; SINGLE tells which it is (precisions.h). */

#undef ROOT
#undef TINY
#undef WHOLE
#undef EVEN
#undef ODD
#undef LOW
#undef HIGH
#undef LOW1
#undef HIGH1
#undef LOW2
#undef HIGH2
#undef LOW4
#undef HIGH4
#undef SORT
#undef BACKWARDS
#undef TURNED
#undef CONJUGATE
#undef TRANSPOSE

#ifndef SHUFFLE
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (NAMED(Mask)){__VA_ARGS__})
#endif

/* One round of a transposition: squares of side d change places. */
#define ROUND(d, low, high)                                            \
    for (int i = 0; i < LANES; i++) {                                  \
        if (i & d) continue;                                           \
        const VEC a = v[i], b = v[i + d];                              \
        v[i] = low(a, b), v[i + d] = high(a, b);                       \
    }

#define VALUE(line, i) ((REAL *)(line))[i]
#define LOOSE(p) (*(NAMED(Loose) *)(p))
#endif

/* EVEN and ODD separate the parts of complex numbers, LOW and HIGH join them again. In between,
 * parts lie in the order that SORT gives real numbers, and undoes: so each is one instruction. */
#ifdef SINGLE
#define ROOT sqrtf
#define TINY FLT_MIN
#define WHOLE int32_t
#define EVEN(a, b) SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14)
#define ODD(a, b) SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
#define LOW(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(a, b) SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW1(a, b) SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH1(a, b) SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#define LOW2(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH2(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define SORT(a) SHUFFLE(a, a, 0, 1, 4, 5, 2, 3, 6, 7)
#define BACKWARDS(a) SHUFFLE(a, a, 6, 7, 4, 5, 2, 3, 0, 1)
#define TURNED(a) SHUFFLE(a, a, 1, 0, 3, 2, 5, 4, 7, 6)
#define CONJUGATE ((VEC){1, -1, 1, -1, 1, -1, 1, -1})
#define TRANSPOSE() ROUND(1, LOW1, HIGH1) ROUND(2, LOW2, HIGH2) ROUND(4, LOW4, HIGH4)
#else
#define ROOT sqrt
#define TINY DBL_MIN
#define WHOLE int64_t
#define EVEN(a, b) SHUFFLE(a, b, 0, 4, 2, 6)
#define ODD(a, b) SHUFFLE(a, b, 1, 5, 3, 7)
#define LOW EVEN
#define HIGH ODD
#define LOW2(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define HIGH2(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#define SORT(a) SHUFFLE(a, a, 0, 2, 1, 3)
#define BACKWARDS(a) SHUFFLE(a, a, 2, 3, 0, 1)
#define TURNED(a) SHUFFLE(a, a, 1, 0, 3, 2)
#define CONJUGATE ((VEC){1, -1, 1, -1})
#define TRANSPOSE() ROUND(1, EVEN, ODD) ROUND(2, LOW2, HIGH2)
#endif

VECTORS
#if !defined(__clang__) && __GNUC__ < 12
typedef WHOLE NAMED(Mask) __attribute__((vector_size(WIDTH)));
#endif
typedef REAL NAMED(Loose) __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));

INLINE COMPLEX NAMED(times)(COMPLEX a, COMPLEX b) {
    return (COMPLEX){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

/* u = z / r, 0 where z is, and r = |z|. */
INLINE COMPLEX NAMED(unit)(COMPLEX z, VEC *modulus) {
    const VEC square = z.re * z.re + z.im * z.im + TINY;
    VEC root;
    for (int64_t lane = 0; lane < LANES; lane++) ((REAL *)&root)[lane] = ROOT(square[lane]);
    const VEC inverse = 1 / root;
    *modulus = (square - TINY) * inverse;
    return (COMPLEX){z.re * inverse, z.im * inverse};
}

/* u^k, k >= 1, by repeated squaring. */
INLINE COMPLEX NAMED(power)(COMPLEX u, int64_t k) {
    COMPLEX out = u;
    int64_t bit = 1;
    while (bit <= k / 2) bit *= 2;
    while (bit /= 2) {
        out = NAMED(times)(out, out);
        if (k & bit) out = NAMED(times)(out, u);
    }
    return out;
}
