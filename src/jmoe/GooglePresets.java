package jmoe;

import static jmoe.PresetConfigs.NONE;
import static jmoe.PresetConfigs.SUM;
import static jmoe.PresetConfigs.atLeastTwo;
import static jmoe.PresetConfigs.limited;
import static jmoe.PresetConfigs.plain;
import static jmoe.PresetConfigs.productKeys;
import static jmoe.PresetConfigs.relu;
import static jmoe.PresetConfigs.vmoe;
import static jmoe.PresetTable.model;
import static jmoe.PresetTable.row;

import jmoe.Preset.Balance;
import jmoe.Preset.Bias;
import jmoe.ops.Activation.Kind;
import jmoe.ops.CapacityLimit;
import jmoe.ops.CapacityLimit.Rounding;
import jmoe.ops.RouterConfig.Normalisation;

import java.util.ArrayList;
import java.util.List;

/** The rows of {@link Presets} that come from Google, mostly with experts of a bounded capacity. */
final class GooglePresets {
    private static final String SWITCH = "Fedus, Zoph and Shazeer 2021, Switch Transformers";
    private static final String FAMILY = "switch_transformers";

    private GooglePresets() {}

    static List<Preset> rows() {
        List<Preset> rows = new ArrayList<>(switchTransformers());
        rows.add(stMoe());
        rows.add(gshard());
        rows.add(glam());
        rows.add(vision());
        rows.add(peer());
        return rows;
    }

    private static List<Preset> switchTransformers() {
        return List.of(
                row(
                        "switch-base-128",
                        relu(FAMILY, 768, 3072, limited(128, 1, NONE, 2)),
                        model(12, 7.4e9, 0, SWITCH).dropping(1.25).with(Balance.LOAD, 0.01)),
                row(
                        "switch-large-128",
                        relu(FAMILY, 1024, 4096, limited(128, 1, NONE, 2)),
                        model(24, 26e9, 0, SWITCH).dropping(1.25).with(Balance.LOAD, 0.01)),
                row(
                                "switch-xxl-128",
                                plain(
                                        FAMILY,
                                        Kind.GEGLU_TANH,
                                        4096,
                                        10240,
                                        limited(128, 1, NONE, atLeastTwo(4))),
                                model(24, 395e9, 0, SWITCH).dropping(1.25).with(Balance.LOAD, 0.01))
                        .alias("switch-xxl"),
                row(
                                "switch-c-2048",
                                relu(FAMILY, 2080, 6144, limited(2048, 1, NONE, atLeastTwo(2))),
                                model(30, 1571e9, 0, SWITCH).dropping(1).with(Balance.LOAD, 0.01))
                        .alias("switch-c"));
    }

    /** Mesh TensorFlow adds 1e-9 to the sum of both gates. */
    private static Preset stMoe() {
        Normalisation sum = new Normalisation.Sum(1e-9);
        return row(
                "st-moe-32b",
                plain("st_moe", Kind.GEGLU_TANH, 5120, 20480, limited(64, 2, sum, 2)),
                model(12, 269e9, 0, "Zoph et al. 2022, ST-MoE")
                        .dropping(1.25)
                        .with(Balance.LOAD, 0.01)
                        .with(Balance.Z, 0.001));
    }

    private static Preset gshard() {
        return row(
                "gshard-600b",
                relu("gshard", 1024, 8192, limited(2048, 2, SUM, 2)),
                model(18, 600e9, 0, "Lepikhin et al. 2020, GShard")
                        .dropping(2)
                        .with(Balance.LOAD, 0.01));
    }

    /** Its dense layers are gated, its experts are not: only so there are 1.162e12 parameters. */
    private static Preset glam() {
        CapacityLimit limit = new CapacityLimit.Factor(2, Rounding.LINGVO);
        return row(
                        "glam-64b64e",
                        plain("glam", Kind.GELU_TANH, 8192, 32768, limited(64, 2, SUM, limit)),
                        model(32, 1.162e12, 96.6e9, "Du et al. 2021, GLaM")
                                .dropping(2)
                                .with(Balance.LOAD, 0.01))
                .alias("glam");
    }

    /** Experts in every second layer, two of 32 for each patch. The noise is that of training. */
    private static Preset vision() {
        return row(
                        "v-moe-b16",
                        plain("v_moe", Kind.GELU_TANH, 768, 3072, vmoe(32, 2)),
                        model(6, 979e6, 0, "Riquelme et al. 2021, Scaling Vision with Sparse MoE")
                                .dropping(1.05)
                                .with(Balance.IMPORTANCE, 0.005)
                                .with(Balance.LOAD_VARIATION, 0.005))
                .biased(Bias.EXPERTS);
    }

    /**
     * The layer alone: He 2024 varies the model around it. Hidden 512 and keys of two halves of 128
     * are those of the example in PEER-pytorch. The bias is what batch norm adds to the queries.
     */
    private static Preset peer() {
        return row(
                        "peer-1m",
                        plain("peer", Kind.GELU, 512, 1, productKeys(1024, 16)),
                        model(
                                0,
                                0,
                                0,
                                "He 2024, Mixture of A Million Experts; hidden is free there"))
                .biased(Bias.ROUTER)
                .of(new ExpertForm.Neurons(8, 128));
    }
}
