// The blocks of the network, forward and backward: LayerNorm, MLPs, and the ways to mix tokens and channels.

#include "layout.h"

// ---------------------------------------------------------------------------------------------------- parts

static real sum(const real *x, int n) {
    vec sums = splat(0);
    int i = 0;
    for (; i + 4 <= n; i += 4) sums += load(x + i);
    real total = sum_of(sums);
    for (; i < n; i++) total += x[i];
    return total;
}

// Row r of a table, [token t][image b], and group g of what LayerNorm normalises together: the token's, or the image's.
#define EACH_ROW \
    for (int t = 0, r = 0; t < n_tokens; t++) \
        for (int b = 0, g = size.norm_of_token ? r : 0; b < n_images; b++, r++, g++)

// LayerNorm. The table is read row by row, as it stands in memory, also where the rows of an image lie apart.
static void norm_forward(Norm *norm, const real *x) {
    int C = size.channels, n_groups = n_images * (size.norm_of_token ? n_tokens : 1);
    int n = size.norm_of_token ? C : n_tokens * C;
    real *mean = norm->mean, *scale = norm->scale;
    __builtin_memset(mean, 0, n_groups * sizeof(real)), __builtin_memset(scale, 0, n_groups * sizeof(real));
    EACH_ROW mean[g] += sum(x + r * C, C);
    for (int g = 0; g < n_groups; g++) mean[g] /= n;
    EACH_ROW {
        const real *row = x + r * C;
        real *out = norm->scaled + r * C, own = mean[g], variance = 0;
        vec squares = splat(0);
        int c = 0;
        for (; c + 4 <= C; c += 4) {
            vec moved = load(row + c) - splat(own);
            store(out + c, moved);
            squares += moved * moved;
        }
        for (variance = sum_of(squares); c < C; c++) out[c] = row[c] - own, variance += out[c] * out[c];
        scale[g] += variance;
    }
    for (int g = 0; g < n_groups; g++) scale[g] = 1 / root(scale[g] / n + size.eps);
    EACH_ROW {
        int first = size.norm_of_token ? 0 : t * C, c = 0;
        real *scaled = norm->scaled + r * C, *out = norm->out + r * C, own = scale[g];
        const real *weight = params + norm->weight + first, *bias = params + norm->bias + first;
        for (; c + 4 <= C; c += 4) {
            vec value = load(scaled + c) * splat(own);
            store(scaled + c, value);
            store(out + c, value * load(weight + c) + load(bias + c));
        }
        for (; c < C; c++) scaled[c] *= own, out[c] = scaled[c] * weight[c] + bias[c];
    }
}

// The gradient of LayerNorm's output, in d_normed, goes to its weights and, added, to d_table.
static void norm_backward(Norm *norm) {
    int C = size.channels, n_groups = n_images * (size.norm_of_token ? n_tokens : 1);
    int n = size.norm_of_token ? C : n_tokens * C;
    real *mean = norm->mean, *slope = norm->slope;
    __builtin_memset(mean, 0, n_groups * sizeof(real)), __builtin_memset(slope, 0, n_groups * sizeof(real));
    EACH_ROW {
        int first = size.norm_of_token ? 0 : t * C, c = 0;
        real *d = d_normed + r * C, *d_weight = grads + norm->weight + first, *d_bias = grads + norm->bias + first;
        const real *scaled = norm->scaled + r * C, *weight = params + norm->weight + first;
        vec means = splat(0), slopes = splat(0);
        for (; c + 4 <= C; c += 4) {
            vec value = load(d + c), own = load(scaled + c);
            store(d_bias + c, load(d_bias + c) + value);
            store(d_weight + c, load(d_weight + c) + value * own);
            value *= load(weight + c);
            store(d + c, value);
            means += value, slopes += value * own;
        }
        real all = sum_of(means), along = sum_of(slopes);
        for (; c < C; c++) {
            d_bias[c] += d[c], d_weight[c] += d[c] * scaled[c];
            d[c] *= weight[c];
            all += d[c], along += d[c] * scaled[c];
        }
        mean[g] += all, slope[g] += along;
    }
    for (int g = 0; g < n_groups; g++) mean[g] /= n, slope[g] /= n;
    EACH_ROW {
        int c = 0;
        real *to = d_table + r * C, *d = d_normed + r * C, *scaled = norm->scaled + r * C, scale = norm->scale[g];
        for (; c + 4 <= C; c += 4) {
            vec change = load(d + c) - splat(mean[g]) - splat(slope[g]) * load(scaled + c);
            store(to + c, load(to + c) + splat(scale) * change);
        }
        for (; c < C; c++) to[c] += scale * (d[c] - mean[g] - slope[g] * scaled[c]);
    }
}

// out [n_rows, n] = x plus a bias for each row, or for each column.
static void add_bias(real *out, const real *x, const real *bias, int n_rows, int n, int bias_of_row) {
    for (int r = 0; r < n_rows; r++, out += n, x += n) {
        int c = 0;
        for (; c + 4 <= n; c += 4) store(out + c, load(x + c) + (bias_of_row ? splat(bias[r]) : load(bias + c)));
        for (; c < n; c++) out[c] = x[c] + bias[bias_of_row ? r : c];
    }
}

// Bias and GELU of a table [n_rows, n]: a bias for each row, or for each column. Behind each table is room for a `wide`.
static void activate(Mlp *mlp, int n_rows, int n, int bias_of_row) {
    int has_gelu = !(bias_of_row && size.token_mixing == LOW_RANK);
    const real *bias = params + mlp->bias1;
    for (int r = 0; r < n_rows; r++)
        for (int c = 0; c < n; c += 8) {
            real *hidden = mlp->hidden + r * n + c, *slopes = mlp->slope + r * n + c;
            wide x = *(wide *)hidden + (bias_of_row ? (wide)bias[r] : *(const wide *)(bias + c)), slope = constant(ONE);
            if (has_gelu) x = gelu_of(x, size.gelu_by_tanh, &slope);
            if (c + 8 <= n) *(wide *)hidden = x, *(wide *)slopes = slope;
            else for (int i = 0; i < n - c; i++) hidden[i] = x[i], slopes[i] = slope[i];
        }
}

static void multiply(real *x, const real *by, int n) {
    int i = 0;
    for (; i + 4 <= n; i += 4) store(x + i, load(x + i) * load(by + i));
    for (; i < n; i++) x[i] *= by[i];
}

// The gradient of a bias: the sum of each row of d [n_rows, n], or of each column.
static void bias_backward(real *d_bias, const real *d, int n_rows, int n, int bias_of_row) {
    for (int r = 0; r < n_rows; r++, d += n) {
        if (bias_of_row) d_bias[r] += sum(d, n);
        else add_bias(d_bias, d_bias, d, 1, n, 0);
    }
}

// ---------------------------------------------------------------------------------------------------- token mixing

// The token that a token takes a channel of group 0 to 3 from: its neighbour at the left, right, top or bottom.
static int source_of(int token, int group) {
    int row = token / columns, column = token % columns;
    if (group == 0) return column > 0 ? token - 1 : token;
    if (group == 1) return column < columns - 1 ? token + 1 : token;
    if (group == 2) return row > 0 ? token - columns : token;
    return row < rows - 1 ? token + columns : token;
}

// Where the weight that leads from token s to token t stands in the kernel, and in the factors of a Kronecker product.
static int in_kernel(int t, int s) {
    return (s / columns - t / columns + rows - 1) * (2 * columns - 1) + s % columns - t % columns + columns - 1;
}
static int in_down(int t, int s) { return t / columns * rows + s / columns; }
static int in_across(int t, int s) { return t % columns * columns + s % columns; }

static real average_weight(int t, int s) {
    int down = s / columns - t / columns, across = s % columns - t % columns;
    if (down * down > 1 || across * across > 1) return 0;
    int y = t / columns, x = t % columns;
    int high = 1 + (y > 0) + (y < rows - 1), wide = 1 + (x > 0) + (x < columns - 1);
    return (real)1 / (high * wide) - (t == s);
}

// Matrices of the linear ways to mix tokens, from the parameters; the same for all images until the next step.
static void make_matrices(void) {
    for (int i = 0; is_matrix() && i < size.layers; i++) {
        const real *first = params + layers[i].token.weight1, *second = params + layers[i].token.weight2;
        for (int t = 0, k = 0; t < n_tokens; t++)
            for (int s = 0; s < n_tokens; s++, k++) {
                real *weight = layers[i].matrix + k;
                if (size.token_mixing == LINEAR) *weight = first[k];
                if (size.token_mixing == AVERAGE) *weight = average_weight(t, s);
                if (size.token_mixing == TOEPLITZ) *weight = first[in_kernel(t, s)];
                if (size.token_mixing == KRONECKER) *weight = first[in_down(t, s)] * second[in_across(t, s)];
            }
    }
}

static void matrix_backward(const Layer *layer) {
    real *first = grads + layer->token.weight1, *second = grads + layer->token.weight2;
    const real *down = params + layer->token.weight1, *across = params + layer->token.weight2;
    for (int t = 0, k = 0; t < n_tokens; t++)
        for (int s = 0; s < n_tokens; s++, k++) {
            if (size.token_mixing == LINEAR) first[k] += matrix_grad[k];
            if (size.token_mixing == TOEPLITZ) first[in_kernel(t, s)] += matrix_grad[k];
            if (size.token_mixing == KRONECKER) {
                first[in_down(t, s)] += matrix_grad[k] * across[in_across(t, s)];
                second[in_across(t, s)] += matrix_grad[k] * down[in_down(t, s)];
            }
        }
}

// The table moved by one position, and back: from → to, or the gradient of `to` added to that of `from`.
static void shift(const real *x, real *y, int is_back) {
    int C = size.channels;
    for (int t = 0; t < n_tokens; t++)
        for (int group = 0; group < 4; group++) {
            int first = (group * C + 3) / 4, end = ((group + 1) * C + 3) / 4, source = source_of(t, group);
            for (int b = 0; b < n_images; b++) {
                int here = (t * n_images + b) * C, there = (source * n_images + b) * C;
                for (int c = first; c < end; c++) y[is_back ? there + c : here + c] += x[is_back ? here + c : there + c];
            }
        }
}

static void bias_of_matrix(const Layer *layer, real *out, const real *x, int n) {
    for (int t = 0; t < n_tokens; t++) {
        real zero = 0;
        const real *bias = size.token_mixing == AVERAGE    ? &zero
                           : size.token_mixing == TOEPLITZ ? params + layer->token.bias1
                                                           : params + layer->token.bias1 + t;
        add_bias(out + t * n, x + t * n, bias, 1, n, 1);
    }
}

static real *token_mixing(Layer *layer, real *x) {
    int T = n_tokens, U = size.hidden_token, n = n_images * size.channels;
    Mlp *mlp = &layer->token;
    if (size.token_mixing == NONE) return x;
    norm_forward(&layer->token_norm, x);
    const real *normed = layer->token_norm.out;
    if (has_hidden_token()) {
        product(U, n, T, params + mlp->weight1, T, 1, normed, n, 1, mlp->hidden, n, 0);
        activate(mlp, U, n, 1);
    }
    if (layer->is_off) return x;
    if (has_hidden_token()) {
        add_bias(layer->middle, x, params + mlp->bias2, T, n, 1);
        product(T, n, U, params + mlp->weight2, U, 1, mlp->hidden, n, 1, layer->middle, n, 1);
    } else if (is_matrix()) {
        bias_of_matrix(layer, layer->middle, x, n);
        product(T, n, T, layer->matrix, T, 1, normed, n, 1, layer->middle, n, 1);
    } else {
        __builtin_memcpy(layer->middle, x, (u64)T * n * sizeof(real));
        shift(normed, layer->middle, 0);
    }
    return layer->middle;
}

static void token_backward(Layer *layer) {
    int T = n_tokens, U = size.hidden_token, n = n_images * size.channels;
    Mlp *mlp = &layer->token;
    const real *normed = layer->token_norm.out;
    if (size.token_mixing == NONE) return;
    if (has_hidden_token()) {
        product(U, n, T, params + mlp->weight2, 1, U, d_table, n, 1, d_hidden, n, 0);
        multiply(d_hidden, mlp->slope, U * n);
        if (size.token_mixing != RANDOM) {
            product(T, U, n, d_table, n, 1, mlp->hidden, 1, n, grads + mlp->weight2, U, 1);
            bias_backward(grads + mlp->bias2, d_table, T, n, 1);
            product(U, T, n, d_hidden, n, 1, normed, 1, n, grads + mlp->weight1, T, 1);
            bias_backward(grads + mlp->bias1, d_hidden, U, n, 1);
        }
        product(T, n, U, params + mlp->weight1, 1, T, d_hidden, n, 1, d_normed, n, 0);
    } else if (is_matrix()) {
        product(T, T, n, d_table, n, 1, normed, 1, n, matrix_grad, T, 0);
        matrix_backward(layer);
        if (size.token_mixing == TOEPLITZ) grads[mlp->bias1] += sum(d_table, T * n);
        else if (size.token_mixing != AVERAGE) bias_backward(grads + mlp->bias1, d_table, T, n, 1);
        product(T, n, T, layer->matrix, 1, T, d_table, n, 1, d_normed, n, 0);
    } else {
        __builtin_memset(d_normed, 0, (u64)T * n * sizeof(real));
        shift(d_table, d_normed, 1);
    }
    norm_backward(&layer->token_norm);
}

// ---------------------------------------------------------------------------------------------------- channel mixing

static real *channel_mixing(Layer *layer, real *x) {
    int C = size.channels, V = size.hidden_channel, n = n_tokens * n_images;
    Mlp *mlp = &layer->channel;
    if (!size.has_channel_mixing) return x;
    norm_forward(&layer->channel_norm, x);
    product(n, V, C, layer->channel_norm.out, C, 1, params + mlp->weight1, 1, C, mlp->hidden, V, 0);
    activate(mlp, n, V, 0);
    add_bias(layer->after, x, params + mlp->bias2, n, C, 0);
    product(n, C, V, mlp->hidden, V, 1, params + mlp->weight2, 1, V, layer->after, C, 1);
    return layer->after;
}

static void channel_backward(Layer *layer) {
    int C = size.channels, V = size.hidden_channel, n = n_tokens * n_images;
    Mlp *mlp = &layer->channel;
    if (!size.has_channel_mixing) return;
    product(n, V, C, d_table, C, 1, params + mlp->weight2, V, 1, d_hidden, V, 0);
    multiply(d_hidden, mlp->slope, n * V);
    product(C, V, n, d_table, 1, C, mlp->hidden, V, 1, grads + mlp->weight2, V, 1);
    bias_backward(grads + mlp->bias2, d_table, n, C, 0);
    product(V, C, n, d_hidden, 1, V, layer->channel_norm.out, C, 1, grads + mlp->weight1, C, 1);
    bias_backward(grads + mlp->bias1, d_hidden, n, V, 0);
    product(n, C, V, d_hidden, V, 1, params + mlp->weight1, C, 1, d_normed, C, 0);
    norm_backward(&layer->channel_norm);
}
