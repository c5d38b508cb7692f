package jmoe.ops;

/**
 * What every backend must do; one part per operation and one for rules they share. A backend is
 * tested by a subclass in its own package:
 *
 * <pre>
 * final class VectorKernelsTest extends KernelsContract {
 *     &#64;Override
 *     protected Kernels kernels() {
 *         return new VectorKernels();
 *     }
 * }
 * </pre>
 *
 * <p>All tensors are in host memory. A device backend is tested through kernels that copy arguments
 * to the device and outputs back. Tests with the tag {@code large} have more than 2^31 elements,
 * those with the tag {@code broad} go through hundreds of combinations in one test, those with the
 * tag {@code arguments} through as many that are refused.
 */
public abstract class KernelsContract extends TestedBackend
        implements RouteContract,
                CapacityContract,
                ProtectedTokensContract,
                RouteRulesContract,
                ShapeLogitsContract,
                RouterInputContract,
                RouteScoreContract,
                RouteRareContract,
                RareRulesContract,
                RouteHashContract,
                BatchRouteContract,
                ExpertChoiceFormsContract,
                SortByExpertContract,
                PermuteContract,
                GroupedGemmContract,
                GateUpSwigluContract,
                RouterContract,
                ExpertsContract,
                WeightlessExpertsContract,
                SizeClassContract,
                PrepareContract,
                QuantisedContract,
                MemoryContract,
                SwigluContract,
                UnpermuteContract,
                SingletonExpertsContract,
                ConstantExpertsContract,
                PeerContract,
                SoftMoeContract,
                ArgumentsContract,
                DeterminismContract,
                HazardsContract,
                LargeContract {}
