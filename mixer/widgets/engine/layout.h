// Sizes, parameters and memory of the network: an MLP-Mixer with its gradients, as in mixer/model.py and mixer/mixing.py.
//
// A table of tokens is stored as [token][image][channel]. Both kinds of mixing are then matrix products of whole
// batches, and no table is ever transposed: the weights of token mixing stand left of it, those of channel mixing right.

#include "numbers.h"

#define MOST_LAYERS 32  // as many as a mask of 32 bits can name
enum { MLP, LINEAR, NONE, RANDOM, AVERAGE, SHIFT, TOEPLITZ, LOW_RANK, KRONECKER };  // ways to mix tokens

// Sizes and options, written by JavaScript in this order.
static struct {
    int batch;  // images that pass at once
    int colours, height, width, patch, channels, hidden_token, hidden_channel, layers, classes;
    int norm_of_token;  // LayerNorm over each token, in place of the whole table
    int gelu_by_tanh, token_mixing, has_channel_mixing;
    float eps;
} size;

typedef struct { int at, size, decays, frozen; float bound; } Tensor;  // drawn between ± bound; LayerNorm's weight is 1
static Tensor tensors[12 * MOST_LAYERS + 8];
static int n_tensors, n_parameters;
static real *params, *grads;

static int rows, columns, n_tokens, n_pixels;  // of the grid; pixels of a patch
static int n_images;                           // that pass now

typedef struct { int weight, bias; real *scaled, *out, *scale, *mean, *slope; } Norm;  // the last three of each group
typedef struct { int weight1, bias1, weight2, bias2; real *hidden, *slope; } Mlp;
typedef struct {
    Norm token_norm, channel_norm;
    Mlp token, channel;
    real *matrix;          // of the linear ways to mix tokens, [n_tokens, n_tokens]
    real *middle, *after;  // the table after each of the two blocks
    byte is_off;           // the token mixing is left out, to see what it does
} Layer;
static Layer layers[MOST_LAYERS];
static Norm last_norm;
static int per_patch, head;  // where their weights stand; the bias follows
static real *patches, *tokens, *pooled, *logits, *matrix_grad;
static real *d_table, *d_normed, *d_hidden, *d_logits;  // gradients on the way back

// ---------------------------------------------------------------------------------------------------- set-up

static real root(real x) { return __builtin_elementwise_sqrt(x); }

static int add_tensor(int n, float bound, int decays, int frozen) {
    int at = n_parameters;
    tensors[n_tensors++] = (Tensor){at, n, decays, frozen, bound};
    n_parameters += n;
    return at;
}

static int add_linear(int n_in, int n_out, int frozen) {
    float bound = 1 / root(n_in);
    int at = add_tensor(n_in * n_out, bound, 1, frozen);
    add_tensor(n_out, bound, 0, frozen);
    return at;
}

static Norm add_norm(void) {
    int n = size.channels * (size.norm_of_token ? 1 : n_tokens);
    u64 table = (u64)n_tokens * size.batch * size.channels;
    Norm norm;
    norm.weight = add_tensor(n, -1, 0, 0), norm.bias = add_tensor(n, 0, 0, 0);
    norm.scaled = reserve_reals(table), norm.out = reserve_reals(table);
    u64 n_groups = size.batch * (size.norm_of_token ? n_tokens : 1);
    norm.scale = reserve_reals(n_groups), norm.mean = reserve_reals(n_groups), norm.slope = reserve_reals(n_groups);
    return norm;
}

static Mlp add_mlp(int n, int n_hidden, int n_rows, int frozen) {
    Mlp mlp;
    mlp.weight1 = add_linear(n, n_hidden, frozen), mlp.bias1 = mlp.weight1 + n * n_hidden;
    mlp.weight2 = add_linear(n_hidden, n, frozen), mlp.bias2 = mlp.weight2 + n * n_hidden;
    mlp.hidden = reserve_reals((u64)n_rows * n_hidden + 8), mlp.slope = reserve_reals((u64)n_rows * n_hidden + 8);
    return mlp;
}

static int has_hidden_token(void) {
    return size.token_mixing == MLP || size.token_mixing == RANDOM || size.token_mixing == LOW_RANK;
}

static int is_matrix(void) {
    return size.token_mixing == LINEAR || size.token_mixing == AVERAGE || size.token_mixing == TOEPLITZ ||
           size.token_mixing == KRONECKER;
}

// In the order of PyTorch's names: the parameters of a block itself come before those of its parts.
static void add_token_mixing(Layer *layer) {
    if (size.token_mixing == NONE) return;
    Mlp *mlp = &layer->token;
    float all = 1 / root(n_tokens);
    if (size.token_mixing == TOEPLITZ)
        mlp->weight1 = add_tensor((2 * rows - 1) * (2 * columns - 1), all, 1, 0), mlp->bias1 = add_tensor(1, all, 0, 0);
    if (size.token_mixing == KRONECKER) {
        mlp->weight1 = add_tensor(rows * rows, 1 / root(rows), 1, 0);
        mlp->weight2 = add_tensor(columns * columns, 1 / root(columns), 1, 0);
        mlp->bias1 = add_tensor(n_tokens, all, 0, 0);
    }
    layer->token_norm = add_norm();
    if (has_hidden_token())
        *mlp = add_mlp(n_tokens, size.hidden_token, size.batch * size.channels, size.token_mixing == RANDOM);
    if (size.token_mixing == LINEAR)
        mlp->weight1 = add_linear(n_tokens, n_tokens, 0), mlp->bias1 = mlp->weight1 + n_tokens * n_tokens;
    if (is_matrix()) layer->matrix = reserve_reals((u64)n_tokens * n_tokens);
}

static void add_layer(Layer *layer) {
    u64 table = (u64)n_tokens * size.batch * size.channels;
    *layer = (Layer){0};
    add_token_mixing(layer);
    layer->middle = reserve_reals(table);
    if (size.has_channel_mixing) {
        layer->channel_norm = add_norm();
        layer->channel = add_mlp(size.channels, size.hidden_channel, n_tokens * size.batch, 0);
    }
    layer->after = reserve_reals(table);
}

// Memory for a network of the sizes that were written; the number of its parameters, or 0 if the memory does not suffice.
int EXPORT(configure)(void) {
    heap_end = heap_begin(), out_of_memory = 0, n_parameters = n_tensors = 0;
    if (size.layers > MOST_LAYERS) return 0;
    rows = size.height / size.patch, columns = size.width / size.patch, n_tokens = rows * columns;
    n_pixels = size.colours * size.patch * size.patch;
    u64 table = (u64)n_tokens * size.batch * size.channels, hidden = (u64)size.batch * size.channels * size.hidden_token;
    u64 other = (u64)size.batch * n_tokens * size.hidden_channel;
    patches = reserve_reals((u64)n_tokens * size.batch * n_pixels), tokens = reserve_reals(table);
    per_patch = add_linear(n_pixels, size.channels, 0);
    for (int i = 0; i < size.layers; i++) add_layer(&layers[i]);
    last_norm = add_norm();
    head = add_linear(size.channels, size.classes, 0);
    pooled = reserve_reals((u64)size.batch * size.channels), logits = reserve_reals((u64)size.batch * size.classes);
    params = reserve_reals(n_parameters), grads = reserve_reals(n_parameters);
    matrix_grad = reserve_reals(is_matrix() ? (u64)n_tokens * n_tokens : 0);
    d_table = reserve_reals(table), d_normed = reserve_reals(table), d_hidden = reserve_reals(hidden > other ? hidden : other);
    d_logits = reserve_reals((u64)size.batch * size.classes);
    return out_of_memory ? 0 : n_parameters;
}
