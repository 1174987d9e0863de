/* What a scattering transform does to single rows and columns, and the transposes of this. */

/* Plans of both axes at one scale; distances between columns of waves, and rows of spectra. */
typedef struct { PLAN y, x; int64_t column, row; } NAMED(Grid);

#define GRID NAMED(Grid)

/* A line of a spectrum and its weights, each of which is there twice. */
typedef struct { const COMPLEX *x; const REAL *psi; } NAMED(Term);

#define TERM NAMED(Term)

/* out (+)= weights times one line, or two; `mirrored`, from -k: backwards and conjugated */
INLINE void NAMED(weigh)(COMPLEX *restrict out, const TERM *a, const TERM *b, int64_t n, int more,
                         int mirrored) {
    const int64_t step = mirrored ? -1 : 1;
    for (int64_t i = 0; i < n; i++) {
        VEC re = a->psi[2 * i] * a->x[step * i].re, im = a->psi[2 * i] * a->x[step * i].im;
        if (b) re += b->psi[2 * i] * b->x[step * i].re, im += b->psi[2 * i] * b->x[step * i].im;
        out[i].re = more ? out[i].re + re : re;
        if (mirrored) out[i].im = more ? out[i].im - im : -im;
        else out[i].im = more ? out[i].im + im : im;
    }
}

INLINE void NAMED(weigh_all)(COMPLEX *out, const TERM *terms, int count, int64_t n, int more,
                             int mirrored) {
    for (int t = 0; t < count; t += 2, more = 1) {
        if (t + 1 == count && more) NAMED(weigh)(out, terms + t, NULL, n, 1, mirrored);
        else if (t + 1 == count) NAMED(weigh)(out, terms + t, NULL, n, 0, mirrored);
        else if (more) NAMED(weigh)(out, terms + t, terms + t + 1, n, 1, mirrored);
        else NAMED(weigh)(out, terms + t, terms + t + 1, n, 0, mirrored);
    }
}

/* One row of the folded product of a bank's filter l with the half spectrum of real fields, whose
 * rows end with their first element again: missing frequencies are conjugate to those at -k. */
INLINE void NAMED(fold_half)(const COMPLEX *half, const GRID *grid, const Bank *s, int64_t l,
                             int64_t row, COMPLEX *out) {
    const int64_t n = s->columns / 2, ny = grid->y.n, nx = grid->x.n;
    TERM terms[2][TERMS];
    int counts[2] = {0, 0}, more = 0;
    for (const Place *p = s->reached; p < s->reached + s->places; p++) {
        if (l < p->first || l >= p->last) continue;
        const int64_t y = p->y * s->rows + row, x = p->x * n;
        const int mirrored = y > ny / 2;
        const COMPLEX *from =
            mirrored ? half + (ny - y) * grid->row + nx - x
                     : half + y * grid->row + x;
        const REAL *psi = (const REAL *)s->values + (row * s->terms + p->term + l - p->first) *
                          s->columns;
        terms[mirrored][counts[mirrored]++] = (TERM){from, psi};
        if (counts[mirrored] < TERMS) continue;
        NAMED(weigh_all)(out, terms[mirrored], TERMS, n, more, mirrored);
        counts[mirrored] = 0, more = 1;
    }
    NAMED(weigh_all)(out, terms[0], counts[0], n, more, 0);
    NAMED(weigh_all)(out, terms[1], counts[1], n, more | (counts[0] > 0), 1);
    if (!(more | counts[0] | counts[1])) memset(out, 0, n * sizeof(COMPLEX));
}

/* The same with whole spectra of images: each lane has a filter and an image of its own. */
INLINE void NAMED(fold_lanes)(const Scattering *task, const REAL *spectra, const Bank *s,
                              int64_t job, int64_t row, REAL *rows, COMPLEX *out) {
    const int64_t L = task->L, jobs = task->images * L;
    for (int64_t lane = 0; lane < LANES; lane++) {
        const int64_t this = job + lane < jobs ? job + lane : jobs - 1, l = this % L;
        const REAL *image = spectra + this / L * task->height * task->width;
        REAL *restrict line = rows + lane * s->columns;
        memset(line, 0, s->columns * sizeof(REAL));
        for (const Place *p = s->reached; p < s->reached + s->places; p++) {
            if (l < p->first || l >= p->last) continue;
            const REAL *psi = (const REAL *)s->values + (row * s->terms + p->term + l - p->first) *
                          s->columns;
            const REAL *x = image + (p->y * s->rows + row) * task->width + p->x * s->columns;
            for (int64_t i = 0; i < s->columns; i++) line[i] += psi[i] * x[i];
        }
    }
    REAL *to = (REAL *)out;
    for (int64_t i = 0; i < s->columns; i++, to += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) to[lane] = rows[lane * s->columns + i];
}

/* The transpose of fold_half: gradients of a half spectrum, to which those of a row are added. */
INLINE void NAMED(unfold_half)(COMPLEX *half, const GRID *grid, const Bank *s, int64_t l,
                               int64_t row, const COMPLEX *gradient) {
    const int64_t n = s->columns / 2, ny = grid->y.n, nx = grid->x.n;
    for (const Place *p = s->reached; p < s->reached + s->places; p++) {
        if (l < p->first || l >= p->last) continue;
        const int64_t y = p->y * s->rows + row, x = p->x * n;
        const REAL *psi = (const REAL *)s->values + (row * s->terms + p->term + l - p->first) *
                          s->columns;
        if (y <= ny / 2) {
            COMPLEX *to = half + y * grid->row + x;
            for (int64_t i = 0; i < n; i++)
                to[i].re += psi[2 * i] * gradient[i].re, to[i].im += psi[2 * i] * gradient[i].im;
        } else {
            COMPLEX *to = half + (ny - y) * grid->row + nx - x;
            for (int64_t i = 0; i < n; i++)
                to[-i].re += psi[2 * i] * gradient[i].re, to[-i].im -= psi[2 * i] * gradient[i].im;
        }
    }
}

/* The transpose of fold_lanes. */
INLINE void NAMED(unfold_lanes)(const Scattering *task, REAL *spectra, const Bank *s, int64_t job,
                                int64_t lanes, int64_t row, REAL *rows, const COMPLEX *gradient) {
    const REAL *from = (const REAL *)gradient;
    for (int64_t i = 0; i < s->columns; i++, from += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) rows[lane * s->columns + i] = from[lane];
    for (int64_t lane = 0; lane < lanes; lane++) {
        const int64_t l = (job + lane) % task->L;
        REAL *image = spectra + (job + lane) / task->L * task->height * task->width;
        const REAL *line = rows + lane * s->columns;
        for (const Place *p = s->reached; p < s->reached + s->places; p++) {
            if (l < p->first || l >= p->last) continue;
            const REAL *psi = (const REAL *)s->values + (row * s->terms + p->term + l - p->first) *
                          s->columns;
            REAL *restrict x = image + (p->y * s->rows + row) * task->width + p->x * s->columns;
            for (int64_t i = 0; i < s->columns; i++) x[i] += psi[i] * line[i];
        }
    }
}

/* What column x adds to output i. */
INLINE REAL NAMED(weight)(const Average *x, int64_t i, int64_t column, int64_t nx) {
    const int64_t k = ((column - x->first - x->step * i) % nx + nx) % nx;
    return k < x->length ? ((const REAL *)x->weights)[k] : 0;
}

/* sums[x'][y'] += the average along y of a column, times its weights along x */
INLINE void NAMED(average)(const Average *y, const Average *x, int64_t ny, int64_t nx,
                           int64_t column,
                           VEC *extended, VEC *averaged, VEC *sums) {
    const int64_t stop = y->first + y->step * (y->count - 1) + y->length;
    VEC *u = extended - y->first;
    for (int64_t i = y->first; i < 0; i++) u[i] = u[i + ny];
    for (int64_t i = ny; i < stop; i++) u[i] = u[i - ny];
    const REAL *weights = y->weights;
    for (int64_t i = 0; i < y->count; i++) {
        const VEC *from = extended + y->step * i;
        VEC a = {0}, b = {0}, c = {0}, d = {0};
        int64_t k = 0;
        for (; k + 4 <= y->length; k += 4) {
            a += weights[k] * from[k], b += weights[k + 1] * from[k + 1];
            c += weights[k + 2] * from[k + 2], d += weights[k + 3] * from[k + 3];
        }
        for (; k < y->length; k++) a += weights[k] * from[k];
        averaged[i] = (a + b) + (c + d);
    }
    for (int64_t i = 0; i < x->count; i++, sums += y->count) {
        const REAL w = NAMED(weight)(x, i, column, nx);
        for (int64_t j = 0; w && j < y->count; j++) sums[j] += w * averaged[j];
    }
}

/* The transpose: u += what a column receives from gradients of the sums. */
INLINE void NAMED(spread)(const Average *y, const Average *x, int64_t ny, int64_t nx,
                          int64_t column,
                          VEC *u, VEC *averaged, const VEC *sums) {
    memset(averaged, 0, y->count * sizeof(VEC));
    for (int64_t i = 0; i < x->count; i++, sums += y->count) {
        const REAL w = NAMED(weight)(x, i, column, nx);
        for (int64_t j = 0; w && j < y->count; j++) averaged[j] += w * sums[j];
    }
    const REAL *weights = y->weights;
    const int64_t stop = y->step * (y->count - 1) + y->length;
    for (int64_t i = 0, to = y->first + ny; i < stop; i++, to++) {
        int64_t j = i < y->length ? 0 : (i - y->length) / y->step + 1;
        VEC sum = {0};
        for (; j < y->count && j * y->step <= i; j++) sum += weights[i - j * y->step] * averaged[j];
        to -= to >= ny ? ny : 0;
        u[to] += sum;
    }
}

/* out[lane][y'][x'] from sums[x'][y'], in lanes that have a job */
INLINE void NAMED(put)(const VEC *sums, const Average *y, const Average *x, int64_t lanes,
                       REAL *const *out) {
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t i = 0; i < y->count; i++)
            for (int64_t j = 0; j < x->count; j++)
                out[lane][i * x->count + j] = ((const REAL *)(sums + j * y->count + i))[lane];
}

/* sums[x'][y'] of the gradients out[lane][y'][x'], 0 in lanes without a job */
INLINE void NAMED(get)(VEC *sums, const Average *y, const Average *x, int64_t lanes,
                       REAL *const *out) {
    memset(sums, 0, y->count * x->count * sizeof(VEC));
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t i = 0; i < y->count; i++)
            for (int64_t j = 0; j < x->count; j++)
                ((REAL *)(sums + j * y->count + i))[lane] = out[lane][i * x->count + j];
}

/* |z|, of z times `unit` */
INLINE void NAMED(moduli)(const COMPLEX *z, VEC *u, int64_t n, REAL unit) {
    for (int64_t i = 0; i < n; i++) {
        const VEC re = z[i].re * unit, im = z[i].im * unit, square = re * re + im * im + TINY;
        for (int64_t lane = 0; lane < LANES; lane++) ((REAL *)(u + i))[lane] = ROOT(square[lane]);
    }
}

/* rho(Re(e^{i alpha} z)) times a unit, by which the cosine and sine of alpha are multiplied */
INLINE void NAMED(rectified)(const COMPLEX *z, VEC *u, int64_t n, REAL cosine, REAL sine) {
    for (int64_t i = 0; i < n; i++) {
        const VEC part = z[i].re * cosine - z[i].im * sine;
        for (int64_t lane = 0; lane < LANES; lane++)
            ((REAL *)(u + i))[lane] = part[lane] > 0 ? part[lane] : 0 * part[lane];
    }
}

/* slope = the gradient z g / |z|, of z times `unit`, bounded where z is 0 or rounding error */
INLINE void NAMED(slopes)(const COMPLEX *z, const VEC *gradient, COMPLEX *slope, int64_t n,
                          REAL unit) {
    for (int64_t i = 0; i < n; i++) {
        const VEC re = z[i].re * unit, im = z[i].im * unit, square = re * re + im * im + TINY;
        for (int64_t lane = 0; lane < LANES; lane++) {
            REAL ratio = gradient[i][lane] / ROOT(square[lane]);
            ratio = ratio > HUGE_ ? HUGE_ : ratio < -HUGE_ ? -HUGE_ : ratio;
            ((REAL *)&slope[i].re)[lane] = unit * (re[lane] * ratio);
            ((REAL *)&slope[i].im)[lane] = unit * (im[lane] * ratio);
        }
    }
}

INLINE void NAMED(rectified_slopes)(const COMPLEX *z, const VEC *gradient, COMPLEX *slope,
                                    int64_t n,
                                    REAL cosine, REAL sine) {
    for (int64_t i = 0; i < n; i++) {
        const VEC part = z[i].re * cosine - z[i].im * sine;
        for (int64_t lane = 0; lane < LANES; lane++) {
            const REAL g = part[lane] > 0 ? gradient[i][lane] : 0;
            ((REAL *)&slope[i].re)[lane] += cosine * g;
            ((REAL *)&slope[i].im)[lane] -= sine * g;
        }
    }
}

#undef TERM
