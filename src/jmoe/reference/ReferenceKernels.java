package jmoe.reference;

import jmoe.ops.Activation;
import jmoe.ops.Arguments;
import jmoe.ops.ConstantArguments;
import jmoe.ops.ConstantExperts;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.SingletonArguments;
import jmoe.ops.SingletonExperts;
import jmoe.ops.SoftArguments;
import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemorySegment;

/**
 * Every operation as its formula, accumulated in double and rounded once. Slow on purpose, on one
 * thread.
 */
public final class ReferenceKernels implements Kernels {
    /** The reference has no state. */
    public ReferenceKernels() {}

    @Override
    public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        Arguments.route(logits, config, inputs, routing);
        Check.host("logits", logits);
        inputs.named().forEach(ReferenceKernels::host);
        Check.host("topkIds", routing.topkIds());
        Check.host("topkWeights", routing.topkWeights());
        ReferenceRouter.route(logits, config, inputs, routing);
    }

    @Override
    public void sortByExpert(Routing routing) {
        Arguments.sortByExpert(routing);
        Check.host("topkIds", routing.topkIds());
        Check.host("tokensPerExpert", routing.tokensPerExpert());
        Check.host("expertOffsets", routing.expertOffsets());
        Check.host("rowToSlot", routing.rowToSlot());
        Check.host("slotToRow", routing.slotToRow());
        Tensor ids = routing.topkIds();
        Tensor counts = routing.tokensPerExpert();
        Tensor offsets = routing.expertOffsets();
        int numExperts = routing.numExperts();
        long slots = ids.numElements();
        int row = 0;
        for (int expert = 0; expert < numExperts; expert++) {
            offsets.setInt(expert, row);
            for (long slot = 0; slot < slots; slot++) {
                if (ids.getInt(slot) == expert) {
                    routing.rowToSlot().setInt(row, (int) slot);
                    routing.slotToRow().setInt(slot, row);
                    row++;
                }
            }
            counts.setInt(expert, row - offsets.getInt(expert));
        }
        offsets.setInt(numExperts, row);
        for (long slot = 0; slot < slots; slot++) {
            int id = ids.getInt(slot);
            if (id < 0 || id >= numExperts) {
                routing.slotToRow().setInt(slot, -1);
            }
        }
    }

    @Override
    public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        Arguments.permute(x, routing, weights, rows);
        Check.host("x", x);
        Check.host("rowToSlot", routing.rowToSlot());
        Check.host("expertOffsets", routing.expertOffsets());
        host("weights", weights);
        Check.host("rows", rows);
        long hidden = x.dim(1);
        int numRows = routing.expertOffsets().getInt(routing.numExperts());
        boolean copies = weights == null && x.dtype() == rows.dtype();
        long rowBytes = x.dtype().numBytes(hidden);
        for (long row = routing.expertOffsets().getInt(0); row < numRows; row++) {
            long slot = routing.rowToSlot().getInt(row);
            long token = slot / routing.topK();
            if (copies) {
                MemorySegment.copy(
                        x.data(), token * rowBytes, rows.data(), row * rowBytes, rowBytes);
                continue;
            }
            double weight = weights == null ? 1 : weights.getDouble(slot);
            for (long h = 0; h < hidden; h++) {
                rows.setDouble(row * hidden + h, weight * x.getDouble(token * hidden + h));
            }
        }
    }

    @Override
    public void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        Arguments.groupedGemm(x, weight, bias, expertOffsets, y);
        Check.host("x", x);
        Check.host("weight", weight);
        Check.rowMajor("weight", weight);
        host("bias", bias);
        Check.host("expertOffsets", expertOffsets);
        Check.host("y", y);
        long outputs = weight.dim(1);
        long inputs = weight.dim(2);
        for (long e = 0; e < weight.dim(0); e++) {
            for (long row = expertOffsets.getInt(e); row < expertOffsets.getInt(e + 1); row++) {
                for (long n = 0; n < outputs; n++) {
                    double sum = bias == null ? 0 : bias.getDouble(e * outputs + n);
                    for (long k = 0; k < inputs; k++) {
                        sum +=
                                x.getDouble(row * inputs + k)
                                        * weight.getDouble((e * outputs + n) * inputs + k);
                    }
                    y.setDouble(row * outputs + n, sum);
                }
            }
        }
    }

    @Override
    public void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        Arguments.swiglu(gateUp, activation, expertOffsets, hidden);
        Check.host("gateUp", gateUp);
        Check.host("expertOffsets", expertOffsets);
        Check.host("hidden", hidden);
        long intermediate = hidden.dim(1);
        long columns = gateUp.dim(1);
        int numRows = expertOffsets.getInt(expertOffsets.numElements() - 1);
        for (long row = expertOffsets.getInt(0); row < numRows; row++) {
            for (long i = 0; i < intermediate; i++) {
                double gate = gateUp.getDouble(row * columns + i);
                double up =
                        activation.gated()
                                ? gateUp.getDouble(row * columns + intermediate + i)
                                : gate;
                hidden.setDouble(
                        row * intermediate + i, ReferenceActivation.of(activation, gate, up));
            }
        }
    }

    @Override
    public void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        Arguments.unpermute(rows, routing, weights, residual, y);
        Check.host("rows", rows);
        Check.host("topkIds", routing.topkIds());
        Check.host("slotToRow", routing.slotToRow());
        host("weights", weights);
        host("addend", residual.addend());
        host("identity", residual.identity());
        Check.host("y", y);
        long hidden = y.dim(1);
        for (long token = 0; token < routing.tokens(); token++) {
            for (long h = 0; h < hidden; h++) {
                double sum =
                        residual.factor() * slotSum(rows, routing, weights, residual, token, h);
                Tensor addend = residual.addend();
                if (addend != null) {
                    sum += addend.getDouble((addend.dim(0) == 1 ? 0 : token) * hidden + h);
                }
                y.setDouble(token * hidden + h, sum);
            }
        }
    }

    private static double slotSum(
            Tensor rows,
            Routing routing,
            @Nullable Tensor weights,
            Residual residual,
            long token,
            long h) {
        int topK = routing.topK();
        long hidden = rows.dim(1);
        double sum = 0;
        for (int k = 0; k < topK; k++) {
            long slot = token * topK + k;
            long row = routing.slotToRow().getInt(slot);
            double weight = weights == null ? 1 : weights.getDouble(slot);
            if (row < 0 || weight == 0) {
                continue;
            }
            Tensor identity = residual.identity();
            boolean isIdentity =
                    identity != null && routing.topkIds().getInt(slot) >= residual.firstIdentity();
            sum +=
                    weight
                            * (isIdentity
                                    ? identity.getDouble(token * hidden + h)
                                    : rows.getDouble(row * hidden + h));
        }
        return sum;
    }

    @Override
    public void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        SingletonArguments.singletonExperts(x, topkIds, weights, experts, y);
        Check.host("x", x);
        Check.host("topkIds", topkIds);
        host("weights", weights);
        Check.host("up", experts.up());
        Check.host("down", experts.down());
        Check.host("y", y);
        ReferenceSingletons.sum(x, topkIds, weights, experts, y);
    }

    @Override
    public void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        ConstantArguments.constantExperts(x, routing, experts, firstId, residual, y);
        Check.host("x", x);
        Check.host("topkIds", routing.topkIds());
        Check.host("topkWeights", routing.topkWeights());
        Check.host("mixing", experts.mixing());
        Check.host("vectors", experts.vectors());
        host("addend", residual.addend());
        Check.host("y", y);
        ReferenceConstants.add(x, routing, experts, firstId, residual, y);
    }

    @Override
    public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        SoftArguments.normaliseRows(x, factor, epsilon, y);
        Check.host("x", x);
        Check.host("y", y);
        ReferenceSoftMix.normaliseRows(x, factor, epsilon, y);
    }

    @Override
    public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        SoftArguments.softDispatch(x, logits, rows);
        Check.host("x", x);
        Check.host("logits", logits);
        Check.host("rows", rows);
        ReferenceSoftMix.dispatch(x, logits, rows);
    }

    @Override
    public void softCombine(Tensor rows, Tensor logits, Tensor y) {
        SoftArguments.softCombine(rows, logits, y);
        Check.host("rows", rows);
        Check.host("logits", logits);
        Check.host("y", y);
        ReferenceSoftMix.combine(rows, logits, y);
    }

    private static void host(String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            Check.host(name, tensor);
        }
    }
}
