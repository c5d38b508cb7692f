package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.function.LongSupplier;
import java.util.function.UnaryOperator;

/**
 * The six operations of a MoE layer, {@link #jitter} and {@link #shapeLogits} in front of the
 * first, and what fuses several of them: {@link #gateUpSwiglu}, {@link #router} and {@link
 * #experts}. A layer calls the last two. {@link #constantExperts} is what MoE++ has besides, {@link
 * #singletonExperts} what PEER has instead of experts with matrices; {@link #softDispatch} and
 * {@link #softCombine} are what Soft-MoE has instead of a choice of experts. A backend is one class
 * that implements what has no default here; the plain loops of {@code jmoe.reference} say what they
 * mean, and every backend is tested against those.
 *
 * <p><b>Common rules.</b> Floating-point arguments may be F32, F16, BF16 (the reference: also F64),
 * each independently; sums are accumulated in at least F32 and rounded once to the output's type.
 * The weight of {@link #groupedGemm} and those of experts may also be I8 codes with a {@linkplain
 * Tensor#scaled scale}, which not every backend has; nothing else may. Matrices are dense and
 * row-major. Outputs are overwritten, never accumulated into, and must not share memory with inputs
 * unless a parameter says so. Arguments are checked before any work starts:
 *
 * <ul>
 *   <li>{@link IllegalArgumentException} for a wrong type or shape, shared or read-only outputs;
 *   <li>{@link IllegalStateException} if an arena is closed;
 *   <li>{@link WrongThreadException} for memory confined to another thread;
 *   <li>{@link UnsupportedOperationException} if the backend lacks the type.
 * </ul>
 *
 * <p>Each call gives the same bits when repeated, for any number of threads; a row of the output
 * depends only on the token it belongs to, not on the batch (except in {@link #route} with
 * capacity, product keys or a rule that {@linkplain RouterConfig#choosesByBatch chooses by batch},
 * with noise in {@link #jitter} and {@link #shapeLogits}, and in {@link #softDispatch}). An
 * instance may be used by several threads; calls then run one after the other.
 */
public interface Kernels extends AutoCloseable {
    /**
     * Applies the transforms of a rule to each token's logits, one after the other: {@code
     * logits[t] = f_n(.. f_1(logits[t]))}. In double, rounded once; the same bits on every backend.
     *
     * <p>Noise depends on a token's number in the batch, everything else on its logits only. NaN
     * stays NaN, with the bits 0x7fc00000. Evaluation without noise is a rule without these
     * transforms: nothing here knows whether it trains.
     *
     * @param logits inout, F32 [tokens, numLogits]; those of tokens that the router does not serve,
     *     by type, are not touched
     * @param config the rule; without transforms nothing happens
     * @param inputs in: what else the transforms read
     */
    default void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        Arguments.shapeLogits(logits, config, inputs);
        Check.host("logits", logits);
        inputs.named().forEach(Check::host);
        new LogitShaping(logits, config, inputs, UnaryOperator.identity()).shape(0, logits.dim(0));
    }

    /**
     * Multiplies every element by a random factor: {@code y[t,h] = f x[t,h]}, the same bits on
     * every backend. What {@link InputTransform.Jitter} does to the tokens that a router reads.
     *
     * <p>f is made of nothing but the seed, the token's number in the batch, the column and the
     * step, as is the noise of {@link LogitTransform}: word h mod 4 of what Philox4x32-10 makes of
     * the counter (t, floor(h / 4), step, 2^32 - 1) gives {@code u = (w + 1/2) / 2^32}, and {@code
     * f = 1 + epsilon (2 u - 1)}, in double, rounded to F32. The product is rounded once; NaN has
     * the bits 0x7fc00000.
     *
     * @param x in, [tokens, H]
     * @param jitter in: seed and epsilon
     * @param step in, I32 [1], as in {@link ShapeInputs}, or null for 0
     * @param y out, F32 [tokens, H]
     */
    default void jitter(Tensor x, InputTransform.Jitter jitter, @Nullable Tensor step, Tensor y) {
        InputArguments.jitter(x, step, y);
        Check.host("x", x);
        if (step != null) {
            Check.host("step", step);
        }
        Check.host("y", y);
        new Jittering(x, jitter, step, y, UnaryOperator.identity()).jitter(0, x.dim(0));
    }

    /**
     * Selects experts: {@code topkIds, topkWeights = rule(logits)}.
     *
     * <p>A NaN logit is never selected while there are K numbers, with groups in those that are
     * kept, and makes the weights NaN that depend on it. So does an infinite maximum of a softmax.
     * NaN weights have the bits 0x7fc00000. Ids stay in range whatever the logits, and unique but
     * for those that a hash table names twice. With product keys, experts are ordered by the sum in
     * double. Rules that {@linkplain RouterConfig#choosesByBatch choose by batch} say themselves
     * what a NaN means.
     *
     * <p>Where a rule gives a token fewer than K experts, the other slots have id -1 and weight 0.
     *
     * @param logits in, F32 or F64 [tokens, numLogits]
     * @param config the rule
     * @param inputs in: what else the rule reads. A token that is absent by its type gets ids -1
     *     and weights 0, as do the tokens of other types with {@link RouterConfig#tokenType} set
     * @param routing out: topkIds, by falling candidate unless the selection says something else or
     *     a {@link Capacity} moves slots, and topkWeights; the other tensors are not touched
     */
    void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing);

    /**
     * Sorts slots by expert, stably: {@code rowToSlot = argsort(topkIds)}.
     *
     * <p>Slots whose id is outside 0..numExperts-1 get no row.
     *
     * @param routing in: topkIds; out: tokensPerExpert, expertOffsets, rowToSlot, slotToRow
     */
    void sortByExpert(Routing routing);

    /**
     * {@link #route} and {@link #sortByExpert} in one.
     *
     * <p>The routing may have fewer experts than the rule. The others are null experts: a slot that
     * chose one keeps its id and its weight, has no row and adds nothing (Uni-MoE-Audio; the zero
     * experts of MoE++, Jin et al. 2024).
     *
     * @param logits as in {@link #route}
     * @param config as there
     * @param inputs as there
     * @param routing out: all six tensors
     */
    default void routeSort(
            Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        FusedArguments.routeSort(logits, config, inputs, routing);
        route(logits, config, inputs, routing);
        sortByExpert(routing);
    }

    /**
     * Copies token rows into expert order: {@code rows[r] = w[r] x[rowToSlot[r] / topK]}.
     *
     * @param x in, [tokens, H]
     * @param routing in: rowToSlot, expertOffsets (for the first row and the last)
     * @param weights in, F32 [tokens, topK] by slot, or null for 1; the product is rounded to the
     *     type of rows
     * @param rows out, [tokens * topK, H]; rows before the first offset and past the last are not
     *     touched
     */
    void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows);

    /**
     * Allocates memory where this backend computes, with undefined content. Operations whose
     * tensors are all there are the fastest.
     *
     * @param arena owner of the memory
     * @param dtype element type
     * @param shape dimensions, outermost first
     * @return a tensor in host memory, or on the device of this backend
     */
    default Tensor allocate(Arena arena, DType dtype, long... shape) {
        return Tensor.allocate(arena, dtype, shape);
    }

    /**
     * Copies elements, each tensor in host memory or where this backend computes. The copy is of
     * what the operations called before have written, and the host's memory may be used again when
     * the call returns.
     *
     * @param from in, of any type but without a scale, in row-major order
     * @param to out, of the same type and shape
     */
    default void copy(Tensor from, Tensor to) {
        Arguments.copy(from, to);
        Check.host("from", from);
        Check.host("to", to);
        to.data().copyFrom(from.data());
    }

    /**
     * Sets every element to one number, without waiting for anything.
     *
     * @param tensor out, I32 of any shape
     * @param value the number
     */
    default void fill(Tensor tensor, int value) {
        Arguments.fill(tensor);
        Check.host("tensor", tensor);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setInt(i, value);
        }
    }

    /**
     * Waits until the operations called so far have ended. On the host they have when they return;
     * a device works through a queue.
     */
    default void synchronise() {}

    /**
     * The multiply-adds of products on registers alone: what a thread does of them per second is
     * the ceiling of all products. Each run lasts some microseconds, on any thread, and returns how
     * many operations it did, two for each multiply-add.
     *
     * @param x type of the rows
     * @param weight type of the weights
     * @return to be run again and again while the kernels are open; null where these are the F32
     *     vectors of Java, and on a device
     */
    default @Nullable LongSupplier multiplyAdds(DType x, DType weight) {
        return null;
    }

    /**
     * Runs operations, waits for them and says how long they took: by the clock of the device, if
     * there is one, from where they begin there.
     *
     * @param operations calls operations of this backend
     * @return nanoseconds
     */
    default double nanos(Runnable operations) {
        long start = System.nanoTime();
        operations.run();
        synchronise();
        return System.nanoTime() - start;
    }

    /**
     * Captures operations, to run them again and again without the cost of calling each: on a
     * device as one graph. Capturing computes nothing.
     *
     * @param operations calls operations, {@link #fill} and copies within a device, on tensors that
     *     are where this backend computes; each must have run before, with tensors of the same
     *     types and at least the same sizes. Tensors must live as long as the replay
     * @return what runs them; close it when done
     * @throws IllegalStateException if the operations do what a graph of the device cannot hold
     */
    default Replay capture(Runnable operations) {
        return operations::run;
    }

    /**
     * Brings a weight to where this backend computes, in the form that it multiplies by fastest,
     * once for many calls.
     *
     * @param weight [groups, outputs, inputs]
     * @param arena owner of the memory of a new form
     * @return the argument itself, or a tensor of the same type and shape that only this kind of
     *     backend reads and that does not need the argument any more; with the same scale, if there
     *     is one
     * @throws UnsupportedOperationException if the weight has a scale and the backend does not
     *     multiply by codes
     */
    default Tensor prepare(Tensor weight, Arena arena) {
        return weight;
    }

    /**
     * Brings a bank of experts, biases included, to where this backend computes, in the form that
     * it computes with fastest, for {@link #gateUpSwiglu} and {@link #groupedGemm}.
     *
     * @param experts in row-major order
     * @param arena owner of the memory of a new form
     * @return the argument itself, or experts that do not need the argument any more
     * @throws UnsupportedOperationException as in {@link #prepare(Tensor, Arena)}
     */
    default ExpertWeights prepare(ExpertWeights experts, Arena arena) {
        return experts;
    }

    /**
     * Multiplies each expert's rows by its matrix: {@code y[r] = x[r] weight[e]^T + bias[e]} for
     * {@code expertOffsets[e] <= r < expertOffsets[e + 1]}. With one group this is a dense linear
     * layer.
     *
     * <p>Where the weight has a scale, the numbers are {@code scale[e, n] * code[e, n, k]}. A
     * backend may then round the rows of x too, each to 127 steps of {@code s[r] = max|x[r]| /
     * 127}: it multiplies by {@code s[r] * rint(x[r] * (127 / max|x[r]|))}, all in F32. A row so
     * small that {@code 127 / max|x[r]|} is no F32 may count as zeros. What a row with NaN or an
     * infinity gives is NaN or infinite throughout either way, but not always the same of the two.
     *
     * @param x in, [rows, inputs]
     * @param weight in, [groups, outputs, inputs], row-major or from {@link #prepare(Tensor,
     *     Arena)}; I8 only with a scale
     * @param bias in, F32 [groups, outputs], or null
     * @param expertOffsets in, I32 [groups + 1]; first entry at least 0, rising, last at most rows
     *     (not checked on a device)
     * @param y out, [rows, outputs]; rows before the first offset and past the last are not touched
     */
    void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y);

    /**
     * Applies the activation: {@code hidden[r] = activation(gateUp[r])}, gate in the first I
     * columns, up in the others.
     *
     * @param gateUp in, [rows, 2I], or [rows, I] if the activation is not gated
     * @param activation the function
     * @param expertOffsets in, I32 [G + 1]; the first entry is the first row, the last one their
     *     end
     * @param hidden out, [rows, I]; other rows are not touched
     */
    void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden);

    /**
     * The first half of every expert, {@link #permute}, {@link #groupedGemm} and {@link #swiglu} in
     * one: {@code hidden[r] = activation(w[r] x[rowToSlot[r] / topK] gateUp[e]^T + bias[e])}. What
     * a backend may round where weights have a scale is {@code w[r] x}.
     *
     * @param x in, [tokens, H]
     * @param routing in: rowToSlot, expertOffsets; it may have more experts than there are weights
     *     for, whose rows are left out, and be a view of {@linkplain Routing#experts some experts}
     * @param weights in, F32 [tokens, topK] by slot, or null for 1
     * @param experts in: gateUp, gateUpBias, activation
     * @param scratch inout, F32 of {@link #gateUpSwigluScratch} elements; any content before and
     *     after
     * @param hidden out, [tokens * topK, I]; rows of other experts are not touched
     */
    default void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor scratch,
            Tensor hidden) {
        Arguments.gateUpSwiglu(x, routing, weights, experts, hidden);
        long slots = routing.tokens() * routing.topK();
        long columns = experts.gateUp().dim(1);
        long rowElements = slots * experts.hidden();
        Check.vector("scratch", scratch, DType.F32, "elements", rowElements + slots * columns);
        Tensor rows = scratch.slice(0, rowElements).reshape(slots, experts.hidden());
        Tensor gateUp = scratch.slice(rowElements, slots * columns).reshape(slots, columns);
        permute(x, routing, weights, rows);
        Tensor offsets = routing.expertOffsets().slice(0, experts.numExperts() + 1L);
        groupedGemm(rows, experts.gateUp(), experts.gateUpBias(), offsets, gateUp);
        swiglu(gateUp, experts.activation(), offsets, hidden);
    }

    /**
     * Scratch that {@link #gateUpSwiglu} needs.
     *
     * @param x type of x there
     * @param slots tokens * topK
     * @param experts as there
     * @return F32 elements, 0 if nothing is stored between the operations
     */
    default long gateUpSwigluScratch(DType x, long slots, ExpertWeights experts) {
        return slots * (experts.hidden() + experts.gateUp().dim(1));
    }

    /**
     * Sums rows back into tokens, in slot order: {@code y[t] = addend[t] + factor * sum_k w[t,k]
     * v[t,k]}, where v is {@code rows[slotToRow[t,k]]}, or {@code identity[t]} for an id of {@code
     * firstIdentity} or above. A slot without a row or with weight 0 adds nothing; identity experts
     * have rows like the others, so the routing counts them among its experts.
     *
     * @param rows in, [tokens * topK, H]
     * @param routing in: slotToRow; topkIds if identity is given
     * @param weights in, F32 [tokens, topK], or null for 1
     * @param residual in: what else belongs to the sum
     * @param y out, [tokens, H]; may be the same tensor as the addend
     */
    void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y);

    /**
     * What {@link #unpermute} adds besides the experts' rows.
     *
     * @param addend [tokens, H], or [1, H] for every token, or null for 0
     * @param identity [tokens, H]: output of the identity experts, or null if there are none
     * @param firstIdentity lowest id of an identity expert
     * @param factor multiplies the sum over slots, not the addend
     */
    record Residual(
            @Nullable Tensor addend, @Nullable Tensor identity, int firstIdentity, double factor) {
        /** Nothing besides the rows. */
        public static final Residual NONE = new Residual(null, null, Integer.MAX_VALUE, 1);

        /**
         * Only an addend.
         *
         * @param addend [tokens, H] or [1, H], or null
         * @return the residual
         */
        public static Residual of(@Nullable Tensor addend) {
            return new Residual(addend, null, Integer.MAX_VALUE, 1);
        }
    }

    /**
     * From tokens to rows, {@link #groupedGemm}, {@link #shapeLogits} and {@link #routeSort} in
     * one: {@code logits[t] = shape(r[t] weight^T + bias)}, with {@code r[t] noiseWeight^T} for the
     * noise logits; what the rule makes of them, and the order of slots by expert; also {@code
     * sharedWeights[t] = sigmoid(x[t] sharedGate)}, if there is such a gate. What is multiplied is
     * r = x, or in F32 what {@linkplain RouterConfig#inputTransforms transforms} make of it, by
     * {@link #jitter}, a product with the projection and {@link #normaliseRows}.
     *
     * <p>A backend may have several ways of computing this, whose logits differ in their last
     * places; it chooses by numbers, sizes and types only. Within one way, the bits of a token do
     * not depend on its batch, except by noise.
     *
     * @param x in, [tokens, H]
     * @param router in: the linear layers, the rule, the gate, the step of the noise, active
     *     experts
     * @param tokens in: what the rule reads of them besides x, as in {@link #route}
     * @param dense in: expertOffsets [0, tokens], or fewer tokens, whose rest must be absent by its
     *     type and has undefined logits; out, with a gate: topkWeights [tokens, 1]
     * @param scratch inout, F32 of at least {@link #routerScratch} elements; any content before and
     *     after
     * @param logits out, F32 [tokens, numLogits], as the rule reads them
     * @param routing out: all six tensors
     */
    default void router(
            Tensor x,
            Router router,
            TokenInputs tokens,
            Routing dense,
            Tensor scratch,
            Tensor logits,
            Routing routing) {
        Composed.router(this, x, router, tokens, dense, scratch, logits, routing);
    }

    /**
     * Whether {@link #router} has kernels of its own for so many tokens, so that the times of its
     * steps would say nothing about it.
     *
     * @param x as there
     * @param router as there
     * @param routing as there
     * @return false if it calls {@link #groupedGemm}, {@link #shapeLogits}, {@link #routeSort} and
     *     what transforms the input
     */
    default boolean fusesRouter(Tensor x, Router router, Routing routing) {
        return false;
    }

    /**
     * Scratch that {@link #router} needs.
     *
     * @param x type of x there
     * @param router as there
     * @param tokens most there will be
     * @return F32 elements, which suffice for fewer tokens too
     */
    default long routerScratch(DType x, Router router, long tokens) {
        return Composed.routerScratch(router, tokens);
    }

    /**
     * Routed experts and the shared expert, {@link #gateUpSwiglu}, {@link #groupedGemm} and {@link
     * #unpermute} for both in one: {@code y[t] = addend[t] + s[t] shared(x[t]) + factor * sum_k
     * w[t,k] v[t,k]}, with v as in {@link #unpermute}.
     *
     * <p>Experts of several sizes are computed size by size, each row with the products of its own
     * expert's size, and summed in one go.
     *
     * <p>A backend may have several ways of computing this, which differ in the last places of y;
     * it chooses by numbers, sizes and types only. Within one way, the bits of a token do not
     * depend on its batch.
     *
     * @param x in, [tokens, H]
     * @param routed in: the experts and their routing
     * @param shared in: the expert of every token, with a dense routing of the same tokens; or null
     * @param residual in: what else belongs to the sum
     * @param rowType F32, F16 or BF16, in which hidden and rows are stored on the way, if they are:
     *     one rounding each
     * @param scratch inout, F32 of at least {@link #expertsScratch} elements; any content before
     *     and after
     * @param y out, [tokens, H]; may be the same tensor as the addend
     */
    default void experts(
            Tensor x,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            DType rowType,
            Tensor scratch,
            Tensor y) {
        Composed.experts(this, x, routed, shared, residual, rowType, scratch, y);
    }

    /**
     * Whether {@link #experts} has kernels of its own for so many tokens, so that the times of its
     * steps would say nothing about it.
     *
     * @param x as there
     * @param routed as there
     * @param shared as there
     * @param rowType as there
     * @return false if it calls {@link #gateUpSwiglu}, {@link #groupedGemm} and {@link #unpermute}
     */
    default boolean fusesExperts(Tensor x, Bank routed, @Nullable Bank shared, DType rowType) {
        return false;
    }

    /**
     * Scratch that {@link #experts} needs.
     *
     * @param rowType as there
     * @param routed for the most tokens that there will be
     * @param shared for as many tokens, or null
     * @return F32 elements, which suffice for fewer tokens too, and for any x whose type is that of
     *     rows, or any at all if rows are F32
     */
    default long expertsScratch(DType rowType, Bank routed, @Nullable Bank shared) {
        return Composed.expertsScratch(this, rowType, routed, shared);
    }

    /**
     * Sums experts of a single neuron into tokens, without bringing slots into expert order: {@code
     * y[t] = sum_k h[t,k] down[e]} with {@code h[t,k] = w[t,k] function(x[t] . up[e])} and {@code e
     * = topkIds[t,k]}.
     *
     * <p>After {@link #route} by product keys for [tokens * heads] queries, whose ids are those of
     * [tokens, heads * topK] slots as they lie, this is the PEER layer of He 2024, "Mixture of A
     * Million Experts".
     *
     * @param x in, [tokens, H]
     * @param topkIds in, I32 [tokens, K]; a slot whose id is outside 0..numExperts-1 adds nothing
     * @param weights in, F32 [tokens, K], or null for 1; a slot with weight 0 adds nothing
     * @param experts in: a neuron that stays at 0 adds nothing
     * @param y out, [tokens, H]
     */
    void singletonExperts(
            Tensor x, Tensor topkIds, @Nullable Tensor weights, SingletonExperts experts, Tensor y);

    /**
     * Sums constant experts into tokens, without rows: {@code y[t] = addend[t] + factor * sum_k
     * w[t,k] (a1 x[t] + a2 vectors[c])} with {@code [a1, a2] = softmax(mixing[c] x[t])} and {@code
     * c = topkIds[t,k] - firstId}, over the slots for which there is such a constant.
     *
     * <p>The softmax of two is the sigmoid of their difference, so that an infinite logit beside a
     * finite one chooses. A token without constant experts is not read.
     *
     * @param x in, [tokens, H]
     * @param routing in: topkIds, topkWeights; a slot with weight 0 adds nothing
     * @param experts in: the constants and how they are mixed
     * @param firstId id of the first constant expert
     * @param residual in: addend and factor; identity experts are summed by {@link #unpermute}
     * @param y out, [tokens, H]; may be the same tensor as the addend
     */
    void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y);

    /**
     * Gives every row one length: {@code y[r] = factor x[r] / (|x[r]| + epsilon)}. Zhai et al. 2023
     * and Puigcerver et al. 2023 normalise so what a router multiplies.
     *
     * @param x in, [rows, columns]
     * @param factor length of the results; finite
     * @param epsilon keeps rows of zeros at zero; finite, at least 0
     * @param y out, [rows, columns]
     */
    void normaliseRows(Tensor x, double factor, double epsilon, Tensor y);

    /**
     * Mixes tokens into slots of experts: {@code rows[s] = sum_t D[t,s] x[t]}, with D the softmax
     * of the logits over tokens. Every row depends on every token. A NaN logit of a slot, or an
     * infinite largest one, makes the slot NaN; without tokens rows are 0.
     *
     * <p>In Soft-MoE slot s belongs to expert s / slotsPerExpert, so that rows are in expert order
     * already. Puigcerver et al. 2023, "From Sparse to Soft Mixtures of Experts".
     *
     * @param x in, [tokens, H]
     * @param logits in, F32 [tokens, numSlots]
     * @param rows out, [numSlots, H]
     */
    void softDispatch(Tensor x, Tensor logits, Tensor rows);

    /**
     * Mixes rows of slots back into tokens: {@code y[t] = sum_s C[t,s] rows[s]}, with C the softmax
     * of the logits over slots. A NaN logit of a token, or an infinite largest one, makes the token
     * NaN.
     *
     * @param rows in, [numSlots, H]
     * @param logits in, F32 [tokens, numSlots], as for {@link #softDispatch}
     * @param y out, [tokens, H]
     */
    void softCombine(Tensor rows, Tensor logits, Tensor y);

    /**
     * Releases threads and memory of the backend, after which its operations throw {@link
     * IllegalStateException}. A backend that holds neither, as the reference, goes on working.
     */
    @Override
    default void close() {}
}
