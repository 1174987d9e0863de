/* Sums of Gaussians times monomials, and the squares of solid harmonics made of them, in one
 * precision.
 *
 * All sums are of products of a number and a vector, which holds points along x. */
#ifndef WAVEMILL_MONOMIALS_H
#define WAVEMILL_MONOMIALS_H

/* How many fields there are, of what; points along each axis before and after; and the distances in
 * memory between molecules, fields, sheets and rows. */
typedef struct {
    int64_t molecules, fields, sources, degree, monomials;
    int64_t old[3], new[3], molecule, field, sheet, row;
} Solid;

typedef struct { int64_t first, last; } Span;

#define ROWS 6 /* rows whose sums are in registers together, */
#define PAIR 2 /* each of so many vectors */
#define BLOCK (ROWS * PAIR)
#define SOME 4 /* vectors of a row whose squares are summed together */
#endif

#undef FAR
#ifdef SINGLE
#define FAR 1e-14f /* part of a Gaussian's height, at 8 widths: what is beyond is left out */
#else
#define FAR 1e-26
#endif

/* Numbers of a matrix, and vectors: distances between rows, and between the terms of a sum, or
 * where each term is. */
typedef struct { const REAL *at; int64_t row, next; } NAMED(Numbers);
typedef struct { VEC *at; int64_t row, next; const int64_t *where; } NAMED(Lines);

/* A monomial of a solid harmonic, and whether it is the last one of its m. */
typedef struct { int64_t m, k, last; REAL c; } NAMED(Term);

#define TERM NAMED(Term)
#define NUMBERS NAMED(Numbers)
#define LINES NAMED(Lines)

/* out[r][v] = sum over k of a[r][k] b[v][k] */
INLINE void NAMED(sums)(NUMBERS a, LINES b, Span k, LINES out, int rows, int vectors) {
    VEC sum[ROWS][PAIR] = {0};
    for (int64_t i = k.first; i < k.last; i++) {
        const VEC *at = b.at + (b.where ? b.where[i] : i * b.next);
        for (int v = 0; v < vectors; v++)
            for (int r = 0; r < rows; r++) sum[r][v] += a.at[r * a.row + i * a.next] * at[v * b.row];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) out.at[r * out.row + v * out.next] = sum[r][v];
}

/* The same for any number of vectors; `apart`: each PAIR of them has a span of its own. */
INLINE void NAMED(line)(NUMBERS a, LINES b, const Span *k, int apart, LINES out, int rows,
                        int64_t vectors) {
    for (; vectors >= PAIR; vectors -= PAIR, k += apart) {
        NAMED(sums)(a, b, *k, out, rows, PAIR);
        b.at += PAIR * b.row, out.at += PAIR * out.next;
    }
    if (vectors) NAMED(sums)(a, b, *k, out, rows, 1);
}

/* And for up to ROWS rows. */
INLINE void NAMED(product)(NUMBERS a, LINES b, const Span *k, int apart, LINES out, int64_t rows,
                           int64_t vectors) {
    switch (rows) {
    case 1: NAMED(line)(a, b, k, apart, out, 1, vectors); break;
    case 2: NAMED(line)(a, b, k, apart, out, 2, vectors); break;
    case 3: NAMED(line)(a, b, k, apart, out, 3, vectors); break;
    case 4: NAMED(line)(a, b, k, apart, out, 4, vectors); break;
    case 5: NAMED(line)(a, b, k, apart, out, 5, vectors); break;
    default: NAMED(line)(a, b, k, apart, out, ROWS, vectors);
    }
}

/* total[t] = sum over m of (sum over monomials of C monomial[t])^2 */
INLINE void NAMED(squares)(const TERM *term, const Solid *s, const VEC *monomials, int64_t apart,
                           VEC *total, int many) {
    for (int t = 0; t < many; t++) total[t] = (VEC){0};
    for (int64_t m = 0; m < 2 * s->degree + 1; m++) {
        VEC sum[BLOCK] = {0};
        for (int more = 1; more; term++) {
            for (int t = 0; t < many; t++) sum[t] += term->c * monomials[term->k * apart + t];
            more = !term->last;
        }
        for (int t = 0; t < many; t++) total[t] += sum[t] * sum[t];
    }
}

/* Lists the monomials that each m is made of. */
static TERM *NAMED(terms)(const REAL *C, const Solid *s) {
    const int64_t rows = 2 * s->degree + 1, P = s->monomials;
    TERM *terms = malloc(rows * P * sizeof(*terms)), *next = terms;
    for (int64_t i = 0; terms && i < rows * P; i++)
        if (C[i] != 0) {
            if (next > terms) next[-1].last = next[-1].m < i / P;
            *next++ = (TERM){i / P, i % P, 1, C[i]};
        }
    return terms;
}

/* From the first to the last of the numbers that exceed FAR in any of some rows. */
static Span NAMED(reach)(const REAL *matrix, int64_t rows, int64_t row, int64_t n) {
    Span found = {n, 0};
    for (int64_t r = 0; r < rows; r++) {
        const REAL *line = matrix + r * row;
        int64_t first = 0, last = n;
        while (first < found.first && line[first] <= FAR) first++;
        while (last > found.last && line[last - 1] <= FAR) last--;
        if (first < found.first) found.first = first;
        if (last > found.last) found.last = last;
    }
    return found;
}

/* Matrices of one molecule along each axis, those of one power and the next `powers` apart: from
 * old points to new ones, each block of which has a span; or from atoms to points. */
typedef struct { const REAL *at[3]; int64_t powers[3]; Span *spans[3]; } NAMED(Axes);

#define AXES NAMED(Axes)
