// Numbers of the engine: vectors of four, elementary functions, the matrix product, random numbers, and memory.
//
// Every operation is one that IEEE 754 rounds in one way alone (+ - * / and the square root), in a fixed order, so that
// every browser computes the same bits. For this reason nothing here comes from a mathematical library.

typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef DOUBLE  // for the test by finite differences, compiled natively
#include <math.h>
typedef double real;
#else
typedef float real;
#endif
typedef real vec __attribute__((ext_vector_type(4), aligned(sizeof(real))));  // at any address of a real

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(#name))) name
#else
#define EXPORT(name) name
#endif

static vec splat(real x) { return (vec)x; }
static vec load(const real *p) { return *(const vec *)p; }
static void store(real *p, vec x) { *(vec *)p = x; }
static real sum_of(vec x) { return (x[0] + x[1]) + (x[2] + x[3]); }
static int min(int a, int b) { return a < b ? a : b; }

// ---------------------------------------------------------------------------------------------------- memory

#ifdef __wasm__
extern byte __heap_base;
#define PAGE 65536
static byte *heap_begin(void) { return &__heap_base; }
static int heap_reaches(u64 end) {
    u64 size = (u64)__builtin_wasm_memory_size(0) * PAGE;
    return end <= size || __builtin_wasm_memory_grow(0, (end - size + PAGE - 1) / PAGE) != (__SIZE_TYPE__)-1;
}
#else
static byte heap[1 << 28];
static byte *heap_begin(void) { return heap; }
static int heap_reaches(u64 end) { return end <= (u64)(heap + sizeof heap); }
#endif

static byte *heap_end;
static int out_of_memory;

// Memory for so many bytes, all 0, until the next call of `reset`.
byte *EXPORT(reserve)(u32 n_bytes) {
    byte *begin = heap_end;
    u64 end = (u64)begin + ((u64)n_bytes + 15) / 16 * 16;
    if (out_of_memory || !heap_reaches(end)) {
        out_of_memory = 1;
        return 0;
    }
    heap_end = (byte *)end;
    __builtin_memset(begin, 0, n_bytes);
    return begin;
}

static real *reserve_reals(u64 n) {
    if (n * sizeof(real) < 1u << 31) return (real *)reserve(n * sizeof(real));
    out_of_memory = 1;
    return 0;
}

// ---------------------------------------------------------------------------------------------------- functions

// eˣ. Source: the coefficients of expf in S. Moshier's Cephes library.
static vec exp_of(vec x) {
#ifdef DOUBLE
    for (int i = 0; i < 4; i++) x[i] = exp(x[i]);
    return x;
#else
    typedef int ints __attribute__((ext_vector_type(4)));
    x = x > 88 ? splat(88) : x, x = x < -87 ? splat(-87) : x;
    vec n = x * splat(1.44269504088896341f) + splat(12582912.0f) - splat(12582912.0f);  // rounded to integers
    vec r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    vec p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return (p * r * r + r + splat(1)) * (vec)power;
#endif
}

// The error function of x ≥ 0, given e^(-x²), to 1.5e-7. Source: Abramowitz and Stegun, formula 7.1.26.
static vec erf_of(vec x, vec power) {
#ifdef DOUBLE
    for (int i = 0; i < 4; i++) x[i] = erf(x[i]);
    return x;
#else
    vec t = splat(1) / (splat(1) + splat(0.3275911f) * x);
    vec p = splat(1.061405429f);
    p = p * t + splat(-1.453152027f);
    p = p * t + splat(1.421413741f);
    p = p * t + splat(-0.284496736f);
    p = p * t + splat(0.254829592f);
    return splat(1) - p * t * power;
#endif
}

// GELU and its derivative; exact, or by the tanh approximation.
static vec gelu_of(vec x, int by_tanh, vec *slope) {
    if (by_tanh) {
        vec inner = splat(0.7978845608028654f) * (x + splat(0.044715f) * x * x * x);
        vec tanh = splat(1) - splat(2) / (exp_of(inner + inner) + splat(1));
        vec inside = splat(0.7978845608028654f) * (splat(1) + splat(3 * 0.044715f) * x * x);
        *slope = splat(0.5f) * (splat(1) + tanh) + splat(0.5f) * x * (splat(1) - tanh * tanh) * inside;
        return splat(0.5f) * x * (splat(1) + tanh);
    }
    vec power = exp_of(splat(-0.5f) * x * x);
    vec half = splat(0.5f) * erf_of((x < 0 ? -x : x) * splat(0.7071067811865476f), power);
    vec share = splat(0.5f) + (x < 0 ? -half : half);  // of a normal distribution below x
    *slope = share + x * power * splat(0.3989422804014327f);
    return x * share;
}

// GELU of one number, for the figures.
real EXPORT(gelu)(real x, int by_tanh) {
    vec slope;
    return gelu_of(splat(x), by_tanh, &slope)[0];
}

// The natural logarithm of x > 0, by the series of the inverse hyperbolic tangent.
static double log_of(double x) {
    union { double x; u64 bits; } number = {x};
    int exponent = (int)(number.bits >> 52) - 1023;
    number.bits = (number.bits & 0xfffffffffffffull) | 1023ull << 52;  // from 1 to 2
    double z = (number.x - 1.5) / (number.x + 1.5), square = z * z, sum = 0;
    for (int k = 25; k > 0; k -= 2) sum = sum * square + 1.0 / k;
    return exponent * 0.6931471805599453 + 0.4054651081081644 + 2 * z * sum;
}

// The sine of x, |x| ≤ π/2, by its series.
static double sin_of(double x) {
    double sum = 1;
    for (int k = 21; k > 1; k -= 2) sum = 1 - sum * x * x / (k * (k - 1));
    return x * sum;
}

// ---------------------------------------------------------------------------------------------------- matrix product

#define DEPTH 256  // products that are added up at once, so that what they need stays in the cache

// Four rows of a times eight columns of b, which lie side by side in `panel`; added to sums.
static void tile(int K, const real *const a[4], int ak, const real *panel, vec sums[8]) {
    const real *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3];
    vec s0 = splat(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (int k = 0; k < K; k++, panel += 8, a0 += ak, a1 += ak, a2 += ak, a3 += ak) {
        vec left = load(panel), right = load(panel + 4);
        s0 += splat(*a0) * left, s1 += splat(*a0) * right;
        s2 += splat(*a1) * left, s3 += splat(*a1) * right;
        s4 += splat(*a2) * left, s5 += splat(*a2) * right;
        s6 += splat(*a3) * left, s7 += splat(*a3) * right;
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3, sums[4] = s4, sums[5] = s5, sums[6] = s6, sums[7] = s7;
}

// Eight columns of b, from K rows, side by side; columns that b has no more are 0.
static void pack(int K, int width, const real *b, int bk, int bn, real *panel) {
    for (int k = 0; k < K; k++, b += bk, panel += 8) {
        if (width == 8 && bn == 1) {
            store(panel, load(b)), store(panel + 4, load(b + 4));
            continue;
        }
        for (int n = 0; n < 8; n++) panel[n] = n < width ? b[n * bn] : 0;
    }
}

// c[m, n] = Σ a[m, k]·b[k, n], or added to what c holds. Element [m, k] of a stands at a[m·am + k·ak], and so for b.
static void product(int M, int N, int K, const real *a, int am, int ak, const real *b, int bk, int bn, real *c, int cm,
                    int is_added) {
    static real panel[DEPTH * 8];
    for (int k0 = 0; k0 < K; k0 += DEPTH, is_added = 1) {
        int depth = min(DEPTH, K - k0);
        for (int n = 0; n < N; n += 8) {
            int width = min(8, N - n);
            pack(depth, width, b + k0 * bk + n * bn, bk, bn, panel);
            for (int m = 0; m < M; m += 4) {
                const real *rows[4];
                vec sums[8];
                for (int i = 0; i < 4; i++) rows[i] = a + min(m + i, M - 1) * am + k0 * ak;  // the last one again
                tile(depth, rows, ak, panel, sums);
                for (int i = 0; i < 4 && m + i < M; i++) {
                    real *out = c + (m + i) * cm + n;
                    if (width == 8) {
                        store(out, is_added ? load(out) + sums[2 * i] : sums[2 * i]);
                        store(out + 4, is_added ? load(out + 4) + sums[2 * i + 1] : sums[2 * i + 1]);
                        continue;
                    }
                    for (int j = 0; j < width; j++) out[j] = sums[2 * i + j / 4][j % 4] + (is_added ? out[j] : 0);
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------- random numbers

typedef struct { u64 state, step; } Random;

// The next 32 random bits. Source: M. O'Neill 2014, "PCG", the generator pcg32.
static u32 bits(Random *random) {
    u64 old = random->state;
    random->state = old * 6364136223846793005ull + random->step;
    u32 mixed = (u32)(((old >> 18) ^ old) >> 27), turn = (u32)(old >> 59);
    return mixed >> turn | mixed << (-turn & 31);
}

static Random seeded(u32 seed, u32 stream) {
    Random random = {0, (u64)stream << 1 | 1};
    bits(&random);
    random.state += seed;
    bits(&random);
    return random;
}

static real uniform(Random *random, real low, real high) {
    return low + (high - low) * ((real)(bits(random) >> 8) / 16777216);
}

static u32 below(Random *random, u32 n) { return (u32)((u64)bits(random) * n >> 32); }
