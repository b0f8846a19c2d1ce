// The whole network, forward and backward.

#include "blocks.h"

static real *stream[2 * MOST_LAYERS + 1];  // the table after the per-patch layer and after every block

// Logits of the first n images, whose patches are there.
void EXPORT(forward)(int n) {
    int C = size.channels, K = size.classes;
    n_images = n;
    product(n_tokens * n, C, n_pixels, patches, n_pixels, 1, params + per_patch, 1, n_pixels, tokens, C, 0);
    add_bias(tokens, tokens, params + per_patch + n_pixels * C, n_tokens * n, C, 0);
    stream[0] = tokens;
    for (int i = 0; i < size.layers; i++) {
        stream[2 * i + 1] = token_mixing(&layers[i], stream[2 * i]);
        stream[2 * i + 2] = channel_mixing(&layers[i], stream[2 * i + 1]);
    }
    norm_forward(&last_norm, stream[2 * size.layers]);
    __builtin_memset(pooled, 0, n * C * sizeof(real));
    for (int t = 0; t < n_tokens; t++) add_bias(pooled, pooled, last_norm.out + t * n * C, 1, n * C, 0);
    for (int i = 0; i < n * C; i++) pooled[i] /= n_tokens;
    product(n, K, C, pooled, C, 1, params + head, 1, C, logits, K, 0);
    add_bias(logits, logits, params + head + C * K, n, K, 0);
}

// Gradients of all parameters, added to those that are there, from those of the logits in d_logits.
static void backward(void) {
    int C = size.channels, K = size.classes, n = n_images;
    product(K, C, n, d_logits, 1, K, pooled, C, 1, grads + head, C, 1);
    bias_backward(grads + head + C * K, d_logits, n, K, 0);
    product(n, C, K, d_logits, K, 1, params + head, C, 1, d_normed, C, 0);
    for (int i = 0; i < n * C; i++) d_normed[i] /= n_tokens;
    for (int t = 1; t < n_tokens; t++) __builtin_memcpy(d_normed + t * n * C, d_normed, n * C * sizeof(real));
    __builtin_memset(d_table, 0, (u64)n_tokens * n * C * sizeof(real));
    norm_backward(&last_norm);
    for (int i = size.layers - 1; i >= 0; i--) channel_backward(&layers[i]), token_backward(&layers[i]);
    product(C, n_pixels, n_tokens * n, d_table, 1, C, patches, n_pixels, 1, grads + per_patch, n_pixels, 1);
    bias_backward(grads + per_patch + n_pixels * C, d_table, n_tokens * n, C, 0);
}
