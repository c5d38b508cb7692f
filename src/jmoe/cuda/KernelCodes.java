package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Scope;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;
import jmoe.tensor.DType;

/** The numbers by which kernels know a choice that is made at run time. */
final class KernelCodes {
    private KernelCodes() {}

    static int of(DType dtype) {
        return switch (dtype) {
            case F32 -> 0;
            case F16 -> 1;
            case BF16 -> 2;
            default -> throw new UnsupportedOperationException(dtype + " is unknown to kernels");
        };
    }

    static int of(Activation.Kind kind) {
        return switch (kind) {
            case SWIGLU -> 0;
            case CLAMPED_SWIGLU -> 1;
            case SILU -> 2;
            case RELU -> 3;
            case SQUARED_RELU -> 4;
            case GELU -> 5;
            case GELU_TANH -> 6;
            case LINEAR -> 7;
            case GEGLU -> 8;
            case GEGLU_TANH -> 9;
            case REGLU -> 10;
            case GLU -> 11;
            case BILINEAR -> 12;
        };
    }

    static int of(Score score) {
        return switch (score) {
            case SOFTMAX -> 0;
            case SIGMOID -> 1;
            case SQRT_SOFTPLUS -> 2;
            case NONE -> 3;
        };
    }

    static int of(Selection selection) {
        return switch (selection) {
            case Selection.TopK topK -> 0;
            case Selection.GroupLimited limited -> 1;
            case Selection.SparseMixer mixer -> 2;
            case Selection.ProductKeys keys -> 3;
            case Selection.OnePerGroup one -> one.scope() == Scope.GLOBAL ? 4 : 5;
            case Selection.TopP topP -> 6;
            case Selection.EntropyK entropyK -> 7;
            case Selection.TwoLevel two -> 8;
            case Selection.Hash hash -> 9;
            // The batch has chosen before tokens are weighed: no kernel asks how.
            case Selection.ExpertChoice choice -> 10;
            case Selection.Sinkhorn sinkhorn -> 10;
            case Selection.BalancedAssignment assignment -> 10;
        };
    }

    static int of(GroupScore score) {
        return switch (score) {
            case MAX -> 0;
            case TOP2_SUM -> 1;
            case TOP_SHARE_SUM -> 2;
        };
    }
}
