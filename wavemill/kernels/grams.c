/* Sums over frequencies of products of two real fields' transforms and of filters, and gradients of
 * these: what wavemill/moments/grams.py does with torch. A tile of frequencies of all channels is
 * read once for all products; these are never written to memory. */
#ifndef REAL

#include "kernels.h"

/* Halves of spectra, (field, row, column) in boxes that shrink from scale to scale, of a field and
 * of `angles` channels a scale, which are taken in `units` (scale, angle). At each scale, its
 * channels and all finer ones are multiplied under filters (angle, 2, column padded to vectors),
 * even and odd: `joint` weighs two channels, `cross` the field and a channel. */
typedef struct {
    int64_t fields, scales, angles;
    const int64_t *boxes, *padded;
    const void *const *spectra;
    const void *const *joint, *const *cross;
    const void *units;
} Grams;

#define TILE 16 /* vectors of frequencies at once */
#define BLOCK 4 /* channels whose sums are in registers */
#define PARTS 16 /* of a scale's tiles that are added up apart, whatever the number of threads */

#define LOOPS "grams.c"
#include "precisions.h"

#else /* one precision */

typedef struct { VEC re[TILE], im[TILE]; } NAMED(Line);
/* A filter's numbers at a tile. */
typedef struct { const REAL *even, *odd; } NAMED(Filter);
/* For both channels of a product: g + g^T and g - g^T. */
typedef struct { REAL even, odd; } NAMED(Slope);

#define LINE NAMED(Line)
#define FILTER NAMED(Filter)
#define SLOPE NAMED(Slope)

INLINE int64_t NAMED(frequencies)(const Grams *task, int64_t scale) {
    return task->boxes[2 * scale] * task->boxes[2 * scale + 1];
}

INLINE int64_t NAMED(channels)(const Grams *task, int64_t scale) { return (scale + 1) * task->angles; }

/* Sums of a scale: (angle, row, channel), rows being channels under `joint`, and the field's even
 * and odd part under `cross`. */
INLINE int64_t NAMED(sums)(const Grams *task, int64_t scale) {
    const int64_t channels = NAMED(channels)(task, scale);
    return task->angles * (channels + 2) * channels;
}

INLINE FILTER NAMED(filter)(const Grams *task, const void *const *filters, int64_t scale,
                            int64_t angle, int64_t first) {
    const int64_t n = task->padded[scale];
    const REAL *even = (const REAL *)filters[scale] + 2 * angle * n + first;
    return (FILTER){even, even + n};
}

/* Where frequency k of a scale's box lies in the box of another, and how many follow in its row. */
INLINE int64_t NAMED(place)(const Grams *task, int64_t scale, int64_t other, int64_t k,
                            int64_t *follow) {
    const int64_t rows = task->boxes[2 * scale], columns = task->boxes[2 * scale + 1];
    const int64_t y = k / columns, x = k % columns;
    *follow = columns - x;
    const int64_t row = y > rows / 2 ? y + task->boxes[2 * other] - rows : y;
    return row * task->boxes[2 * other + 1] + x;
}

/* Frequencies from `first` on of half a spectrum in another scale's box; 0 after them. */
INLINE void NAMED(read)(const Grams *task, const REAL *half, int64_t scale, int64_t other,
                        int64_t first, int64_t count, REAL unit, LINE *line) {
    REAL *restrict re = (REAL *)line->re, *restrict im = (REAL *)line->im;
    if (count < TILE * LANES) memset(line, 0, sizeof(LINE));
    for (int64_t k = 0, n; k < count; k += n) {
        const REAL *from = half + 2 * NAMED(place)(task, scale, other, first + k, &n);
        n = n < count - k ? n : count - k;
        for (int64_t i = 0; i < n; i++)
            re[k + i] = unit * from[2 * i], im[k + i] = unit * from[2 * i + 1];
    }
}

INLINE void NAMED(write)(const Grams *task, const LINE *line, int64_t scale, int64_t other,
                         int64_t first, int64_t count, REAL unit, REAL *half) {
    const REAL *re = (const REAL *)line->re, *im = (const REAL *)line->im;
    for (int64_t k = 0, n; k < count; k += n) {
        REAL *restrict to = half + 2 * NAMED(place)(task, scale, other, first + k, &n);
        n = n < count - k ? n : count - k;
        if (scale == other) /* the first that is written */
            for (int64_t i = 0; i < n; i++)
                to[2 * i] = unit * re[k + i], to[2 * i + 1] = unit * im[k + i];
        else
            for (int64_t i = 0; i < n; i++)
                to[2 * i] += unit * re[k + i], to[2 * i + 1] += unit * im[k + i];
    }
}

/* A tile of the channels that meet at a scale. */
CLONED static void NAMED(read_channels)(const Grams *task, int64_t field, int64_t scale,
                                        int64_t first, int64_t count, LINE *lines) {
    for (int64_t c = 0; c < NAMED(channels)(task, scale); c++) {
        const int64_t other = c / task->angles;
        const int64_t channel = field * task->angles + c % task->angles;
        const REAL *half = (const REAL *)task->spectra[other] +
                           2 * channel * NAMED(frequencies)(task, other);
        NAMED(read)(task, half, scale, other, first, count, ((const REAL *)task->units)[c], lines + c);
    }
}

/* (e - i o) z */
INLINE void NAMED(weigh)(const LINE *z, FILTER f, int64_t n, LINE *out) {
    for (int64_t i = 0; i < n; i++) {
        const VEC e = LOOSE(f.even + i * LANES), o = LOOSE(f.odd + i * LANES);
        out->re[i] = e * z->re[i] + o * z->im[i], out->im[i] = e * z->im[i] - o * z->re[i];
    }
}

/* u e z and -u i o z */
INLINE void NAMED(part)(const LINE *z, FILTER f, REAL unit, int64_t n, LINE *out) {
    for (int64_t i = 0; i < n; i++) {
        const VEC e = unit * LOOSE(f.even + i * LANES), o = unit * LOOSE(f.odd + i * LANES);
        out[0].re[i] = e * z->re[i], out[0].im[i] = e * z->im[i];
        out[1].re[i] = o * z->im[i], out[1].im[i] = -o * z->re[i];
    }
}

/* sums (row, channel) += Re row conj(channel), of BLOCK rows at most. */
INLINE void NAMED(meet)(const LINE *rows, int64_t count, const LINE *lines, int64_t channels,
                        int64_t n, VEC *sums) {
    for (int64_t c = 0; c < channels; c += BLOCK) {
        const LINE *a[BLOCK], *b[BLOCK];
        VEC sum[BLOCK][BLOCK] = {{{0}}};
        for (int64_t r = 0; r < BLOCK; r++) {
            a[r] = rows + (r < count ? r : 0);
            b[r] = lines + (c + r < channels ? c + r : c);
        }
        for (int64_t i = 0; i < n; i++)
            for (int r = 0; r < BLOCK; r++)
                for (int s = 0; s < BLOCK; s++)
                    sum[r][s] += a[r]->re[i] * b[s]->re[i] + a[r]->im[i] * b[s]->im[i];
        for (int64_t r = 0; r < BLOCK && r < count; r++)
            for (int64_t s = 0; s < BLOCK && c + s < channels; s++)
                sums[r * channels + c + s] += sum[r][s];
    }
}

/* What a tile adds to the sums of its scale. */
CLONED static void NAMED(add_tile)(const Grams *task, int64_t scale, int64_t first, int64_t n,
                                   const LINE *lines, const LINE *field, VEC *sums) {
    const int64_t channels = NAMED(channels)(task, scale);
    LINE rows[BLOCK];
    for (int64_t l = 0; l < task->angles; l++) {
        const FILTER joint = NAMED(filter)(task, task->joint, scale, l, first);
        for (int64_t c = 0; c < channels; c += BLOCK) {
            const int64_t count = channels - c < BLOCK ? channels - c : BLOCK;
            for (int64_t r = 0; r < count; r++) NAMED(weigh)(lines + c + r, joint, n, rows + r);
            NAMED(meet)(rows, count, lines, channels, n, sums);
            sums += count * channels;
        }
        NAMED(part)(field, NAMED(filter)(task, task->cross, scale, l, first),
                    ((const REAL *)task->units)[scale * task->angles + l], n, rows);
        NAMED(meet)(rows, 2, lines, channels, n, sums);
        sums += 2 * channels;
    }
}

/* Gradients at a tile of BLOCK channels from c on; if there are fewer, the last is taken again. */
INLINE void NAMED(pull_block)(const Grams *task, int64_t scale, int64_t first, int64_t n,
                              const LINE *lines, const SLOPE *slopes, int64_t c, LINE *out) {
    const int64_t channels = NAMED(channels)(task, scale), square = channels * channels;
    const SLOPE *row[BLOCK];
    for (int64_t r = 0; r < BLOCK; r++)
        row[r] = slopes + (c + r < channels ? c + r : channels - 1) * channels;
    for (int64_t i = 0; i < n; i++) {
        COMPLEX total[BLOCK] = {{{0}, {0}}};
        for (int64_t l = 0; l < task->angles; l++) {
            const FILTER f = NAMED(filter)(task, task->joint, scale, l, first + i * LANES);
            COMPLEX even[BLOCK] = {{{0}, {0}}}, odd[BLOCK] = {{{0}, {0}}};
            for (int64_t b = 0; b < channels; b++) {
                const VEC re = lines[b].re[i], im = lines[b].im[i];
                for (int r = 0; r < BLOCK; r++) {
                    const SLOPE g = row[r][l * square + b];
                    even[r].re += g.even * re, even[r].im += g.even * im;
                    odd[r].re += g.odd * re, odd[r].im += g.odd * im;
                }
            }
            const VEC e = LOOSE(f.even), o = LOOSE(f.odd);
            for (int r = 0; r < BLOCK; r++) {
                total[r].re += e * even[r].re - o * odd[r].im;
                total[r].im += e * even[r].im + o * odd[r].re;
            }
        }
        for (int r = 0; r < BLOCK; r++) out[r].re[i] = total[r].re, out[r].im[i] = total[r].im;
    }
}

/* Gradients of a tile of all channels, and of the field, from those of the sums. */
CLONED static void NAMED(pull_tile)(const Grams *task, int64_t scale, int64_t first, int64_t n,
                                    const LINE *lines, const LINE *field, const SLOPE *slopes,
                                    const REAL *values, LINE *gradients, LINE *field_gradient) {
    const int64_t channels = NAMED(channels)(task, scale);
    for (int64_t c = 0; c < channels; c += BLOCK)
        NAMED(pull_block)(task, scale, first, n, lines, slopes, c, gradients + c);
    memset(field_gradient, 0, sizeof(LINE));
    for (int64_t l = 0; l < task->angles; l++) {
        values += channels * channels;
        const REAL unit = ((const REAL *)task->units)[scale * task->angles + l];
        const FILTER f = NAMED(filter)(task, task->cross, scale, l, first);
        for (int64_t i = 0; i < n; i++) {
            const VEC e = unit * LOOSE(f.even + i * LANES), o = unit * LOOSE(f.odd + i * LANES);
            const VEC re = e * field->re[i], im = e * field->im[i];
            const VEC turned_re = o * field->im[i], turned_im = -o * field->re[i];
            COMPLEX even = {{0}, {0}}, odd = {{0}, {0}};
            for (int64_t c = 0; c < channels; c++) {
                const REAL g = values[c], h = values[channels + c];
                gradients[c].re[i] += g * re + h * turned_re;
                gradients[c].im[i] += g * im + h * turned_im;
                even.re += g * lines[c].re[i], even.im += g * lines[c].im[i];
                odd.re += h * lines[c].re[i], odd.im += h * lines[c].im[i];
            }
            field_gradient->re[i] += e * even.re - o * odd.im;
            field_gradient->im[i] += e * even.im + o * odd.re;
        }
        values += 2 * channels;
    }
}

INLINE void NAMED(find_slopes)(const Grams *task, int64_t scale, const REAL *values, SLOPE *out) {
    const int64_t n = NAMED(channels)(task, scale);
    for (int64_t l = 0; l < task->angles; l++, values += (n + 2) * n)
        for (int64_t a = 0; a < n; a++)
            for (int64_t b = 0; b < n; b++)
                *out++ = (SLOPE){values[a * n + b] + values[b * n + a],
                                 values[a * n + b] - values[b * n + a]};
}

/* A thread's lines: channels, rounded up to blocks, and their gradients; the field, and its own. */
INLINE int64_t NAMED(lines)(const Grams *task) {
    return 2 * (NAMED(channels)(task, task->scales - 1) + BLOCK + 1);
}

INLINE int64_t NAMED(total)(const Grams *task) {
    int64_t total = 0;
    for (int64_t j = 0; j < task->scales; j++) total += NAMED(sums)(task, j);
    return total;
}

/* Bytes that so many threads work in: lines, a thread's sums, those of the parts, and slopes. */
int64_t NAMED(grams_bytes)(const Grams *task, int threads) {
    const int64_t lines = NAMED(lines)(task) * sizeof(LINE);
    const int64_t sums = NAMED(sums)(task, task->scales - 1);
    const int64_t parts = PARTS * NAMED(total)(task) * sizeof(REAL);
    return threads * (lines + sums * sizeof(VEC)) + parts + sums * (int64_t)sizeof(SLOPE);
}

/* The first frequency of a part, in whole tiles. */
INLINE int64_t NAMED(start)(int64_t frequencies, int64_t part, int64_t parts) {
    const int64_t tile = TILE * LANES;
    return (frequencies + tile - 1) / tile * part / parts * tile;
}

/* Tiles of a part of a scale. */
#define OWN_TILES(first, count, n)                                                             \
    for (int64_t all = NAMED(frequencies)(task, j), first = NAMED(start)(all, part, parts),    \
                 end = NAMED(start)(all, part + 1, parts), count, n;                           \
         count = all - first < TILE * LANES ? all - first : TILE * LANES,                      \
                 n = (count + LANES - 1) / LANES, first < end;                                 \
         first += TILE * LANES)

/* A part of a field's sums. */
static void NAMED(add_part)(const Grams *task, const REAL *half, int64_t f, int64_t part,
                            LINE *lines, VEC *vectors, REAL *out) {
    LINE *field = lines + NAMED(lines)(task) - 1;
    const int64_t parts = PARTS;
    for (int64_t j = 0; j < task->scales; out += NAMED(sums)(task, j++)) {
        const int64_t sums = NAMED(sums)(task, j);
        int there = 0;
        OWN_TILES(first, count, n) {
            if (!there++) memset(vectors, 0, sums * sizeof(VEC));
            NAMED(read_channels)(task, f, j, first, count, lines);
            NAMED(read)(task, half, j, 0, first, count, 1, field);
            NAMED(add_tile)(task, j, first, n, lines, field, vectors);
        }
        for (int64_t i = 0; i < sums; i++) {
            REAL sum = 0;
            for (int64_t lane = 0; there && lane < LANES; lane++) sum += vectors[i][lane];
            out[i] = sum;
        }
    }
}

/* out (field, sum of all scales) of halves of fields' spectra, in the box of scale 0. */
int NAMED(grams)(const REAL *halves, const Grams *task, REAL *out, char *memory, int threads) {
    const int64_t all = NAMED(total)(task), lines = NAMED(lines)(task) * sizeof(LINE);
    const int64_t vectors = NAMED(sums)(task, task->scales - 1) * sizeof(VEC);
    REAL *sums = (REAL *)(memory + threads * (lines + vectors));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int64_t thread = this_thread();
        char *own = memory + thread * (lines + vectors);
        for (int64_t f = 0; f < task->fields; f++) {
#pragma omp for schedule(static, 1)
            for (int64_t part = 0; part < PARTS; part++)
                NAMED(add_part)(task, halves + 2 * f * NAMED(frequencies)(task, 0), f, part,
                                (LINE *)own, (VEC *)(own + lines), sums + part * all);
#pragma omp for
            for (int64_t i = 0; i < all; i++) {
                REAL sum = 0;
                for (int64_t part = 0; part < PARTS; part++) sum += sums[part * all + i];
                out[f * all + i] = sum;
            }
        }
    }
    return 1;
}

/* Gradients of the fields' and the channels' halves; the latter in `gradients`, like `spectra`. */
int NAMED(grams_gradients)(const REAL *halves, const Grams *task, const REAL *values,
                           REAL *fields_gradient, const int64_t *gradients, char *memory,
                           int threads) {
    const int64_t all = NAMED(total)(task), lines = NAMED(lines)(task) * sizeof(LINE);
    SLOPE *slopes = (SLOPE *)(memory + threads * lines);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const int64_t part = this_thread(), parts = all_threads();
        LINE *own = (LINE *)(memory + part * lines);
        LINE *pulled = own + NAMED(lines)(task) / 2;
        LINE *field = own + NAMED(lines)(task) / 2 - 1, *field_pulled = own + NAMED(lines)(task) - 1;
        for (int64_t f = 0; f < task->fields; f++) {
            const REAL *half = halves + 2 * f * NAMED(frequencies)(task, 0), *value = values + f * all;
            REAL *half_gradient = fields_gradient + 2 * f * NAMED(frequencies)(task, 0);
            for (int64_t j = 0; j < task->scales; value += NAMED(sums)(task, j++)) {
#pragma omp single
                NAMED(find_slopes)(task, j, value, slopes);
                OWN_TILES(first, count, n) {
                    NAMED(read_channels)(task, f, j, first, count, own);
                    NAMED(read)(task, half, j, 0, first, count, 1, field);
                    NAMED(pull_tile)(task, j, first, n, own, field, slopes, value, pulled,
                                     field_pulled);
                    NAMED(write)(task, field_pulled, j, 0, first, count, 1, half_gradient);
                    for (int64_t c = 0; c < NAMED(channels)(task, j); c++) {
                        const int64_t other = c / task->angles;
                        const int64_t channel = f * task->angles + c % task->angles;
                        NAMED(write)(task, pulled + c, j, other, first, count,
                                     ((const REAL *)task->units)[c],
                                     (REAL *)gradients[other] +
                                         2 * channel * NAMED(frequencies)(task, other));
                    }
                }
#pragma omp barrier
            }
        }
    }
    return 1;
}

#undef OWN_TILES
#undef LINE
#undef FILTER
#undef SLOPE
#endif
