package jmoe.cuda;

import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.GroupScore;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.ops.Selection;

import java.util.List;

/**
 * The sizes of a model's MoE layer.
 *
 * @param model its name
 * @param hidden H
 * @param intermediate I
 * @param router the rule, with E and K
 */
record TimedShape(String model, int hidden, int intermediate, RouterConfig router) {
    static final TimedShape MIXTRAL =
            new TimedShape("Mixtral-8x7B", 4096, 14336, RouterConfig.softmaxTopK(8, 2, true));

    static final TimedShape OLMOE =
            new TimedShape("OLMoE-1B-7B", 2048, 1024, RouterConfig.softmaxTopK(64, 8, false));

    static final TimedShape QWEN3 =
            new TimedShape("Qwen3-30B-A3B", 2048, 768, RouterConfig.softmaxTopK(128, 8, true));

    static final TimedShape DEEPSEEK_V3 =
            new TimedShape(
                    "DeepSeek-V3",
                    7168,
                    2048,
                    new RouterConfig(
                            256,
                            8,
                            Score.SIGMOID,
                            new Selection.GroupLimited(8, 4, GroupScore.TOP2_SUM),
                            new Normalisation.Sum(1e-20),
                            2.5,
                            false,
                            null,
                            RouterConfig.ALL_TOKENS));

    /** For machines on which times mean nothing. */
    static final TimedShape SMALLEST =
            new TimedShape("smallest", 72, 40, RouterConfig.softmaxTopK(8, 2, true));

    static final List<TimedShape> MODELS = List.of(MIXTRAL, OLMOE, QWEN3, DEEPSEEK_V3);

    int numExperts() {
        return router.numExperts();
    }

    int topK() {
        return router.topK();
    }
}
