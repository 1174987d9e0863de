/* What the compiled loops share: each file includes itself once for each precision. Functions
 * marked CLONED are compiled for several processors and chosen when the library is loaded. */
#ifndef WAVEMILL_KERNELS_H
#define WAVEMILL_KERNELS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

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

/* Which thread of a team this is, and of how many. */
INLINE int64_t this_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

INLINE int64_t all_threads(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

#define WIDTH 32 /* bytes of a vector */
#define LANES ((int64_t)(WIDTH / sizeof(REAL)))
#define FACTORS 24
#define PRIME 67 /* the largest prime factor of a side */
#define PI 3.14159265358979323846

#define JOIN_(name, type) name##_##type
#define JOIN(name, type) JOIN_(name, type)
#define NAMED(name) JOIN(name, REAL)

/* Vectors of a precision, and complex numbers in two of them. */
#define VEC NAMED(Vec)
#define COMPLEX NAMED(Complex)
#define VECTORS                                                        \
    typedef REAL VEC __attribute__((vector_size(WIDTH)));              \
    typedef struct { VEC re, im; } COMPLEX;

#endif
