package jmoe;

import jmoe.ops.Kernels;
import jmoe.ops.PeerWeights;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.ops.SingletonExperts;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

/**
 * A PEER layer: every token asks as many as a million experts of a single neuron, and finds the
 * best of them by product keys, without looking at them all. He 2024, "Mixture of A Million
 * Experts".
 *
 * <pre>
 * q1, q2  = halves of x Wq^T + b            of each head
 * s[i, j] = q1 . keys[0, i] + q2 . keys[1, j]            the score of expert i n + j
 * w       = softmax over the topK best scores of a head, or a score of each by itself
 * y       = sum over heads and their topK of w function(x . up[e]) down[e]
 * </pre>
 *
 * <p>A layer runs one pass at a time; other threads wait.
 */
public final class PeerLayer implements AutoCloseable {
    private final Kernels kernels;
    private final RouterConfig rule;
    private final int heads;
    private final LayerMemory memory;
    private final Tensor[] queryWeights = new Tensor[2];
    private final Tensor[] queryBiases;
    private final Tensor keys;
    private final SingletonExperts experts;
    private final Tensor queries;
    private final Tensor logits;
    private final Tensor tokenOffsets;
    private final Tensor queryOffsets;
    private final Routing routing;
    private long lastTokens = -1;

    /**
     * A layer over weights and kernels that the caller owns and keeps open. Weights are brought to
     * where the backend computes.
     *
     * @param weights queries, keys, experts
     * @param topK experts of each head, 1 to n^2
     * @param score {@link Score#SOFTMAX} for a softmax over a head's topK scores; any other is
     *     taken of each score by itself, so that experts do not compete
     * @param kernels the backend
     * @param maxTokens most tokens of a pass
     */
    public PeerLayer(PeerWeights weights, int topK, Score score, Kernels kernels, long maxTokens) {
        this.kernels = kernels;
        heads = weights.heads();
        int numKeys = weights.numKeys();
        boolean softmax = score == Score.SOFTMAX;
        rule =
                new RouterConfig(
                        numKeys * numKeys,
                        topK,
                        score,
                        new Selection.ProductKeys(numKeys),
                        softmax ? new Normalisation.Sum(0) : new Normalisation.None(),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        LayerMemory.checkMaxTokens(maxTokens, (long) heads * Math.max(2, topK));
        memory = new LayerMemory(kernels, maxTokens, weights.experts().hidden());
        try {
            long maxQueries = maxTokens * heads;
            queries = memory.allocate(DType.F32, 2 * maxQueries * weights.keys().dim(2));
            logits = memory.allocate(DType.F32, 2 * maxQueries * numKeys);
            tokenOffsets = memory.allocate(DType.I32, 2);
            queryOffsets = memory.allocate(DType.I32, 3);
            routing = Routing.allocate(memory::allocate, maxQueries, topK, 1);
            Tensor bias = weights.queryBias();
            queryBiases = new Tensor[bias == null ? 0 : 2];
            for (int half = 0; half < 2; half++) {
                Tensor part = weights.queries().slice(half, 1);
                queryWeights[half] = kernels.prepare(part, memory.arena());
                if (bias != null) {
                    queryBiases[half] = memory.beside(logits, bias.slice(half, 1));
                }
            }
            keys = kernels.prepare(weights.keys(), memory.arena());
            experts =
                    new SingletonExperts(
                            memory.beside(logits, weights.experts().up()),
                            memory.beside(logits, weights.experts().down()),
                            weights.experts().activation());
        } catch (RuntimeException | Error e) {
            memory.close();
            throw e;
        }
    }

    /**
     * Computes the layer. With x and y on a device the pass is queued there and the call returns.
     *
     * @param x in, F32, F16 or BF16 [tokens, H]
     * @param y out, F32, F16 or BF16 [tokens, H]
     */
    public synchronized void forward(Tensor x, Tensor y) {
        long tokens = memory.tokens(x, y);
        lastTokens = tokens;
        long numQueries = tokens * heads;
        long width = keys.dim(2);
        memory.setOffsets(tokenOffsets, tokens);
        memory.setOffsets(queryOffsets, numQueries);
        long half = numQueries * width;
        for (int i = 0; i < 2; i++) {
            Tensor halves = queries.slice(i * half, half).reshape(tokens, heads * width);
            Tensor bias = queryBiases.length == 0 ? null : queryBiases[i];
            kernels.groupedGemm(x, queryWeights[i], bias, tokenOffsets, halves);
        }
        // One product for both halves leaves the scores as route reads them: all first ones, then
        // all second ones.
        Tensor rows = queries.slice(0, 2 * half).reshape(2 * numQueries, width);
        long scores = 2 * numQueries * rule.numLogits() / 2;
        Tensor all = logits.slice(0, scores);
        Tensor product = all.reshape(2 * numQueries, rule.numLogits() / 2);
        kernels.groupedGemm(rows, keys, null, queryOffsets, product);
        Routing chosen = routing.first(numQueries);
        kernels.route(all.reshape(numQueries, rule.numLogits()), rule, RouteInputs.NONE, chosen);
        long slots = (long) heads * rule.topK();
        kernels.singletonExperts(
                x,
                chosen.topkIds().reshape(tokens, slots),
                chosen.topkWeights().reshape(tokens, slots),
                experts,
                y);
    }

    /**
     * The experts that the last pass chose.
     *
     * @return I32 [tokens, heads * topK], where the backend computes; head after head, and
     *     overwritten by the next pass
     * @throws IllegalStateException if there was no pass yet, or the layer is closed
     */
    public synchronized Tensor topkIds() {
        memory.requireOpen();
        if (lastTokens < 0) {
            throw new IllegalStateException("topkIds: no pass yet; call forward");
        }
        Tensor ids = routing.first(lastTokens * heads).topkIds();
        return ids.reshape(lastTokens, (long) heads * rule.topK());
    }

    /** Frees the layer's memory, but neither weights nor kernels; may be called again. */
    @Override
    public synchronized void close() {
        memory.close();
    }
}
