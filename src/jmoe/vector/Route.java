package jmoe.vector;

import jmoe.ops.Capacity;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.util.Objects;

/** {@code topkIds, topkWeights = rule(logits)}: tokens in parallel, queues for a capacity not. */
final class Route {
    /** Logits that are worth handing to another thread. */
    private static final int GRAIN_LOGITS = 2048;

    private final Workers workers;
    private final @Nullable TokenRouter[] routers;
    private final ExpertQueues queues = new ExpertQueues();
    private final ExpertChoice expertChoice;
    private final Sinkhorn sinkhorn;
    private final BalancedAssignment assignment;

    /** Scores or weights by slot and the best score of each token, for a capacity. */
    private double[] slotScores = new double[0];

    private double[] bestScores = new double[0];

    /** For a capacity that sends slots to the next best experts: these, of each token. */
    private final @Nullable TokenRouter[] rankers;

    private int[] ranked = new int[0];

    Route(Workers workers) {
        this.workers = workers;
        routers = new TokenRouter[workers.count()];
        rankers = new TokenRouter[workers.count()];
        expertChoice = new ExpertChoice(workers);
        sinkhorn = new Sinkhorn(workers);
        assignment = new BalancedAssignment(workers);
    }

    /** The arguments of one call, as the workers see them. */
    record Batch(
            Elements logits,
            @Nullable Elements bias,
            @Nullable Elements tokenTypes,
            @Nullable Elements expertScale,
            @Nullable Elements activeExperts,
            @Nullable TokenHash hash,
            @Nullable Elements protectedTokens,
            boolean isRare,
            Elements ids,
            Elements weights,
            RouterConfig config,
            int tokens) {
        boolean serves(int token) {
            return tokenTypes == null || config.serves(tokenTypes.getInt(token));
        }

        /** Whether a capacity must keep all slots of a token. */
        boolean isProtected(int token) {
            return protectedTokens != null && protectedTokens.getInt(token) != 0;
        }

        Capacity capacity() {
            return Objects.requireNonNull(config.capacity());
        }

        int slots() {
            return Math.multiplyExact(tokens, config.topK());
        }

        /** The logit of one expert. */
        double logit(int token, int expert) {
            if (config.selection() instanceof Selection.ProductKeys p) {
                long n = p.numKeys();
                double first = logits.getFloat(token * n + expert / n);
                return first + logits.getFloat(((long) tokens + token) * n + expert % n);
            }
            return logits.getFloat((long) token * config.numExperts() + expert);
        }

        int countServed() {
            int count = 0;
            for (int token = 0; token < tokens; token++) {
                count += serves(token) ? 1 : 0;
            }
            return count;
        }

        long grain() {
            return Math.max(1, GRAIN_LOGITS / Math.max(1, config.numLogits()));
        }

        /** What a weight is multiplied by when all else is done. */
        float scale(long slot) {
            int id = expertScale == null ? -1 : ids.getInt(slot);
            return expertScale == null || id < 0 ? 1 : expertScale.getFloat(id);
        }
    }

    void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        Batch batch =
                new Batch(
                        Elements.of(logits, workers),
                        elements(inputs.selectionBias()),
                        elements(inputs.tokenTypes()),
                        elements(inputs.expertScale()),
                        elements(inputs.activeExperts()),
                        hash(inputs),
                        elements(inputs.protectedTokens()),
                        inputs.activeExperts() != null || RareRouter.serves(config),
                        Elements.of(routing.topkIds(), workers),
                        Elements.of(routing.topkWeights(), workers),
                        config,
                        (int) routing.tokens());
        Capacity capacity = config.capacity();
        if (capacity != null) {
            routeWithin(capacity, batch);
            return;
        }
        if (config.choosesByBatch()) {
            routeTogether(batch);
            return;
        }
        workers.run(
                batch.tokens,
                batch.grain(),
                (worker, from, to) -> {
                    TokenRouter router = router(routers, worker, config);
                    for (int token = (int) from; token < to; token++) {
                        routeToken(router, batch, token);
                        writeWeights(batch, token, batch.serves(token) ? router.weights : null, 0);
                    }
                });
    }

    private @Nullable Elements elements(@Nullable Tensor tensor) {
        return tensor == null ? null : Elements.of(tensor, workers);
    }

    private @Nullable TokenHash hash(RouteInputs inputs) {
        Tensor ids = inputs.tokenIds();
        Tensor table = inputs.hashTable();
        return ids == null
                ? null
                : new TokenHash(
                        Elements.of(ids, workers),
                        elements(table),
                        table == null ? 0 : table.dim(0));
    }

    private static TokenRouter router(
            @Nullable TokenRouter[] routers, int worker, RouterConfig config) {
        TokenRouter router = routers[worker];
        if (router == null || !router.serves(config)) {
            router = new TokenRouter(config);
            routers[worker] = router;
        }
        return router;
    }

    private static void routeToken(TokenRouter router, Batch batch, int token) {
        int topK = batch.config.topK();
        boolean served = batch.serves(token);
        if (served && batch.hash != null) {
            router.routeByHash(batch.hash, token);
        } else if (served && batch.isRare) {
            router.routeRarely(batch.logits, batch.bias, batch.activeExperts, token);
        } else if (served) {
            router.route(batch.logits, batch.bias, token, batch.tokens);
        }
        for (int k = 0; k < topK; k++) {
            batch.ids.setInt((long) token * topK + k, served ? router.ids[k] : -1);
        }
    }

    /** Writes the K weights that begin at {@code from}, or zeros. */
    private static void writeWeights(
            Batch batch, int token, double @Nullable [] weights, int from) {
        int topK = batch.config.topK();
        for (int k = 0; k < topK; k++) {
            long slot = (long) token * topK + k;
            float weight = weights == null ? 0 : (float) (weights[from + k] * batch.scale(slot));
            // One NaN for all, so that a repeated call gives the same bits.
            batch.weights.setFloat(slot, Float.isNaN(weight) ? Float.NaN : weight);
        }
    }

    /** The batch decides about experts, then each token about their weights. */
    private void routeTogether(Batch batch) {
        BatchChoice choice = choice(batch);
        boolean byExperts = batch.config.selection() instanceof Selection.ExpertChoice;
        ColumnPowers columns = byExperts ? expertChoice.columns() : null;
        int topK = batch.config.topK();
        workers.run(
                batch.tokens,
                batch.grain(),
                (worker, from, to) -> {
                    TokenRouter router = router(routers, worker, batch.config);
                    for (int token = (int) from; token < to; token++) {
                        boolean served = batch.serves(token);
                        if (served) {
                            int count = choice.choose(worker, token, router.ids);
                            router.weighChosen(batch.logits, token, count, columns);
                        }
                        for (int k = 0; k < topK; k++) {
                            int id = served ? router.ids[k] : -1;
                            batch.ids.setInt((long) token * topK + k, id);
                        }
                        writeWeights(batch, token, served ? router.weights : null, 0);
                    }
                });
    }

    private BatchChoice choice(Batch batch) {
        return switch (batch.config.selection()) {
            case Selection.ExpertChoice choice -> expertChoice.prepare(batch, choice);
            case Selection.Sinkhorn bounds -> sinkhorn.prepare(batch, bounds);
            case Selection.BalancedAssignment auction ->
                    assignment.prepare(batch, auction.epsilon());
            default -> throw new IllegalArgumentException(batch.config + " looks at one token");
        };
    }

    private void routeWithin(Capacity capacity, Batch batch) {
        int topK = batch.config.topK();
        int slots = batch.slots();
        slotScores = slotScores.length < slots ? new double[slots] : slotScores;
        bestScores = bestScores.length < batch.tokens ? new double[batch.tokens] : bestScores;
        workers.run(
                batch.tokens,
                batch.grain(),
                (worker, from, to) -> {
                    TokenRouter router = router(routers, worker, batch.config);
                    for (int token = (int) from; token < to; token++) {
                        routeToken(router, batch, token);
                        bestScores[token] = batch.serves(token) ? (float) router.bestScore() : 0;
                        System.arraycopy(router.weights, 0, slotScores, token * topK, topK);
                    }
                });
        RouterConfig ranking = capacity.ranking(batch.config);
        if (ranking != null) {
            rank(ranking, batch);
        }
        queues.apply(
                batch,
                bestScores,
                slotScores,
                ranking == null ? null : ranked,
                ranking == null ? 0 : ranking.topK());
        for (int token = 0; token < batch.tokens; token++) {
            boolean served = batch.serves(token);
            if (served && capacity.normaliseAfter()) {
                TokenRouter.normaliseKept(batch.config, slotScores, token * topK);
            }
            writeWeights(batch, token, served ? slotScores : null, token * topK);
        }
    }

    /** The best experts of each token, more than K. */
    private void rank(RouterConfig ranking, Batch batch) {
        int numRanked = ranking.topK();
        int all = Math.multiplyExact(batch.tokens, numRanked);
        ranked = ranked.length < all ? new int[all] : ranked;
        workers.run(
                batch.tokens,
                batch.grain(),
                (worker, from, to) -> {
                    TokenRouter router = router(rankers, worker, ranking);
                    for (int token = (int) from; token < to; token++) {
                        if (batch.serves(token)) {
                            if (batch.isRare) {
                                router.routeRarely(
                                        batch.logits, batch.bias, batch.activeExperts, token);
                            } else {
                                router.route(batch.logits, batch.bias, token, batch.tokens);
                            }
                            System.arraycopy(router.ids, 0, ranked, token * numRanked, numRanked);
                        }
                    }
                });
    }
}
