package jmoe;

import static jmoe.PresetConfigs.moma;
import static jmoe.PresetConfigs.relu;
import static jmoe.PresetConfigs.softmax;
import static jmoe.PresetTable.model;
import static jmoe.PresetTable.released;
import static jmoe.PresetTable.row;

import jmoe.Preset.Bias;
import jmoe.ops.CapacityLimit;
import jmoe.ops.CapacityLimit.Rounding;
import jmoe.ops.LogitTransform;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.tensor.DType;

import java.util.List;

/** The rows of {@link Presets} that nobody released weights of: a study, and code of surveys. */
final class SchemePresets {
    /** Free in the code of the survey. */
    private static final int FREE_HIDDEN = 512;

    private SchemePresets() {}

    static List<Preset> rows() {
        return List.of(moma14(), surveyOfOneMap(), surveyOfTwoOutputs());
    }

    /**
     * Four experts of text and four of images. The paper states a width of 8192 and 7.1e9
     * parameters: those of three matrices of two thirds of that width, 5464, as SwiGLU takes them.
     */
    private static Preset moma14() {
        return row(
                "moma-1.4b",
                moma(2048, 5464, 4),
                model(24, 7.1e9, 1.4e9, "Lin et al. 2024, MoMa; 5464 is derived from its 8192"));
    }

    /** One map and ReLU behind it, two of eight by a softmax of temperature 0.1. */
    private static Preset surveyOfOneMap() {
        CapacityLimit limit = new CapacityLimit.Factor(1.2, Rounding.FASTMOE);
        RouterConfig rule =
                PresetConfigs.limited(8, 2, PresetConfigs.SUM, limit)
                        .withLogitTransforms(List.of(new LogitTransform.Temperature(0.1)));
        return row(
                        "survey4-demo",
                        relu("survey", FREE_HIDDEN, FREE_HIDDEN, rule),
                        demo("code of a survey, with free sizes"))
                .biased(Bias.ROUTER, Bias.EXPERTS)
                .of(new ExpertForm.OneMap());
    }

    /** Ten numbers in, two out. */
    private static Preset surveyOfTwoOutputs() {
        RouterConfig rule = softmax(4, 2, new Normalisation.Sum(1e-8));
        return row("survey2-demo", relu("survey", 10, 32, rule), demo("code of a survey"))
                .biased(Bias.ROUTER, Bias.EXPERTS)
                .of(new ExpertForm.Narrow(2));
    }

    private static Preset.Published demo(String source) {
        return released(DType.F32, 0, 0, 0, source);
    }
}
