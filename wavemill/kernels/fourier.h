/* Fourier transforms of LANES lines at once, one in each lane of a vector: this takes no shuffles,
 * and every step of a scattering transform can work on lines while they are in the nearest cache.
 *
 * A line is a row of complex vectors. Its transform is Stockham's, of mixed radix: every stage
 * reads one row and writes another in order, so that nothing has to be reversed. The inverse is the
 * transform with real and imaginary parts exchanged, which is why these are passed separately. */

/* A length, its factors, the twiddles e^{-2 pi i k p / length} of each stage, and behind them the
 * roots of unity (cosine, sine) of each prime factor above 5, which begin where `roots` says. */
typedef struct {
    int64_t n, roots[FACTORS];
    int stages, radix[FACTORS];
    REAL *twiddles;
} NAMED(Plan);

#define PLAN NAMED(Plan)
#define AT(p, i) (p)[2 * (i)]

/* Returns whether there was memory and the length has small factors. */
static int NAMED(plan)(PLAN *plan, int64_t n) {
    int64_t rest = n, count = 0, length = n;
    *plan = (PLAN){n, {0}, 0, {0}, NULL};
    for (; rest % 4 == 0; rest /= 4) plan->radix[plan->stages++] = 4;
    for (int prime = 2; prime <= PRIME; prime++)
        for (; rest % prime == 0; rest /= prime) plan->radix[plan->stages++] = prime;
    if (rest != 1) return 0;
    for (int t = 0; t < plan->stages; length /= plan->radix[t++])
        count += 2 * (plan->radix[t] - 1) * (length / plan->radix[t]);
    for (int t = 0; t < plan->stages; t++)
        if (plan->radix[t] > 5) plan->roots[t] = count, count += 2 * plan->radix[t];
    REAL *w = plan->twiddles = malloc((count + 1) * sizeof(REAL));
    if (!w) return 0;
    length = n;
    for (int t = 0; t < plan->stages; length /= plan->radix[t++])
        for (int64_t p = 0; p < length / plan->radix[t]; p++)
            for (int k = 1; k < plan->radix[t]; k++) {
                double angle = -2 * PI * (double)(k * p) / (double)length;
                *w++ = (REAL)cos(angle), *w++ = (REAL)sin(angle);
            }
    for (int t = 0; t < plan->stages; t++)
        for (int k = 0; plan->radix[t] > 5 && k < plan->radix[t]; k++) {
            const double angle = 2 * PI * k / plan->radix[t];
            *w++ = (REAL)cos(angle), *w++ = (REAL)sin(angle);
        }
    return 1;
}

/* One output of a butterfly, turned by its twiddle unless the stage is the last. */
#define PUT(k, r, i)                                                   \
    do {                                                               \
        const VEC pr = (r), pi = (i);                                  \
        if (turned && (k)) {                                           \
            const REAL c = w[2 * (k) - 2], s = w[2 * (k) - 1];         \
            AT(yr, (k) * gap) = pr * c - pi * s;                       \
            AT(yi, (k) * gap) = pr * s + pi * c;                       \
        } else {                                                       \
            AT(yr, (k) * gap) = pr, AT(yi, (k) * gap) = pi;            \
        }                                                              \
    } while (0)
#define GET(k) const VEC r##k = AT(xr, (k) * apart), i##k = AT(xi, (k) * apart)
#define BUTTERFLY(name)                                                                         \
    INLINE void NAMED(name)(const VEC *xr, const VEC *xi, int64_t apart, VEC *yr, VEC *yi,      \
                            int64_t gap, const REAL *w, int turned)

BUTTERFLY(two) {
    GET(0); GET(1);
    PUT(0, r0 + r1, i0 + i1);
    PUT(1, r0 - r1, i0 - i1);
}

BUTTERFLY(three) {
    const REAL sine = (REAL)0.86602540378443864676;
    GET(0); GET(1); GET(2);
    const VEC ar = r1 + r2, ai = i1 + i2, br = r0 - (REAL)0.5 * ar, bi = i0 - (REAL)0.5 * ai;
    const VEC cr = sine * (r1 - r2), ci = sine * (i1 - i2);
    PUT(0, r0 + ar, i0 + ai);
    PUT(1, br + ci, bi - cr);
    PUT(2, br - ci, bi + cr);
}

BUTTERFLY(four) {
    GET(0); GET(1); GET(2); GET(3);
    const VEC ar = r0 + r2, ai = i0 + i2, br = r0 - r2, bi = i0 - i2;
    const VEC cr = r1 + r3, ci = i1 + i3, dr = r1 - r3, di = i1 - i3;
    PUT(0, ar + cr, ai + ci);
    PUT(1, br + di, bi - dr);
    PUT(2, ar - cr, ai - ci);
    PUT(3, br - di, bi + dr);
}

BUTTERFLY(five) {
    const REAL c1 = (REAL)0.30901699437494742410, c2 = (REAL)-0.80901699437494742410;
    const REAL s1 = (REAL)0.95105651629515357212, s2 = (REAL)0.58778525229247312917;
    GET(0); GET(1); GET(2); GET(3); GET(4);
    const VEC ar = r1 + r4, ai = i1 + i4, br = r2 + r3, bi = i2 + i3;
    const VEC cr = r1 - r4, ci = i1 - i4, dr = r2 - r3, di = i2 - i3;
    const VEC er = r0 + c1 * ar + c2 * br, ei = i0 + c1 * ai + c2 * bi;
    const VEC fr = r0 + c2 * ar + c1 * br, fi = i0 + c2 * ai + c1 * bi;
    const VEC gr = s1 * cr + s2 * dr, gi = s1 * ci + s2 * di;
    const VEC hr = s2 * cr - s1 * dr, hi = s2 * ci - s1 * di;
    PUT(0, r0 + ar + br, i0 + ai + bi);
    PUT(1, er + gi, ei - gr);
    PUT(2, fr + hi, fi - hr);
    PUT(3, fr - hi, fi + hr);
    PUT(4, er - gi, ei + gr);
}

/* An odd prime: sums and differences of x_j and x_-j times cosines and sines, as for five. */
INLINE void NAMED(odd)(const VEC *xr, const VEC *xi, int64_t apart, VEC *yr, VEC *yi, int64_t gap,
                       const REAL *w, int turned, int radix, const REAL *roots) {
    VEC ar[PRIME / 2], ai[PRIME / 2], br[PRIME / 2], bi[PRIME / 2];
    const int half = radix / 2;
    GET(0);
    VEC sr = r0, si = i0;
    for (int j = 1; j <= half; j++) {
        const VEC pr = AT(xr, j * apart), pi = AT(xi, j * apart);
        const VEC qr = AT(xr, (radix - j) * apart), qi = AT(xi, (radix - j) * apart);
        ar[j - 1] = pr + qr, ai[j - 1] = pi + qi, br[j - 1] = pr - qr, bi[j - 1] = pi - qi;
        sr += ar[j - 1], si += ai[j - 1];
    }
    PUT(0, sr, si);
    for (int k = 1; k <= half; k++) {
        VEC er = r0, ei = i0, gr = {0}, gi = {0};
        for (int j = 1, at = k; j <= half; j++, at = (at + k) % radix) {
            const REAL c = roots[2 * at], s = roots[2 * at + 1];
            er += c * ar[j - 1], ei += c * ai[j - 1];
            gr += s * br[j - 1], gi += s * bi[j - 1];
        }
        PUT(k, er + gi, ei - gr);
        PUT(radix - k, er - gi, ei + gr);
    }
}

/* One stage, of pieces of radix m elements that lie s apart. */
INLINE void NAMED(stage)(int radix, const VEC *xr, const VEC *xi, VEC *yr, VEC *yi, int64_t m,
                         int64_t s, int64_t step, const REAL *w, int turned,
                         const REAL *roots) {
#define ALL(name, ...)                                                                           \
    for (int64_t p = 0; p < m; p++, w += 2 * (radix - 1))                                        \
        for (int64_t q = 0; q < s; q++)                                                          \
            NAMED(name)(xr + 2 * (q + s * p), xi + 2 * (q + s * p), s * m,                       \
                        yr + 2 * step * (q + s * radix * p), yi + 2 * step * (q + s * radix * p), \
                        step * s, w, turned __VA_ARGS__)
    switch (radix) {
    case 2: ALL(two); break;
    case 3: ALL(three); break;
    case 4: ALL(four); break;
    case 5: ALL(five); break;
    case 7: ALL(odd, , 7, roots); break;
    case 11: ALL(odd, , 11, roots); break;
    case 13: ALL(odd, , 13, roots); break;
    case 17: ALL(odd, , 17, roots); break;
    default: ALL(odd, , radix, roots);
    }
#undef ALL
}

/* The line's transform, its elements `step` apart; `spare` holds 2 n, and not those of x or y. */
CLONED static void NAMED(transform)(const PLAN *plan, const VEC *xr, const VEC *xi, VEC *yr,
                                    VEC *yi, int64_t step, COMPLEX *spare) {
    const REAL *w = plan->twiddles;
    int64_t s = 1;
    for (int t = 0; t < plan->stages; t++) {
        const int radix = plan->radix[t], last = t == plan->stages - 1;
        const int64_t m = plan->n / s / radix;
        COMPLEX *to = spare + t % 2 * plan->n;
        VEC *tr = last ? yr : &to->re, *ti = last ? yi : &to->im;
        const REAL *roots = plan->twiddles + plan->roots[t];
        if (last) NAMED(stage)(radix, xr, xi, tr, ti, m, s, step, w, 0, roots);
        else NAMED(stage)(radix, xr, xi, tr, ti, m, s, 1, w, 1, roots);
        xr = tr, xi = ti, w += 2 * (radix - 1) * m, s *= radix;
    }
}

#undef PUT
#undef GET
#undef BUTTERFLY
