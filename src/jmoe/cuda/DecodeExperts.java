package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.Bank;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * All experts of a layer in two kernels that stream their weights, for few tokens; by wgmma where
 * {@link #onWgmma} says so, else by mma.sync. Both start early, as the kernel in front of them
 * ends, where the device can do that.
 */
final class DecodeExperts {
    private static final int CAPABILITY_OF_EARLY_LAUNCH = 90;

    /**
     * Bytes of which rows and addresses are multiples for tensor maps, and the elements in them.
     */
    private static final int ALIGNMENT = 16;

    private static final int ALIGNED_ELEMENTS = 8;

    /** What a kernel can number. */
    private static final long MAX_GROUPS = 1 << 15;

    /** Of L2, what weights for the next kernel may take. */
    private static final long L2_SHARE = 3;

    private static final long COMBINE_BYTES = 8 * 8 + 8 * 4;
    private static final long PREFETCH_BYTES = 24;

    private final CudaContext context;
    private final @Nullable DecodePath forced;
    private final DecodeCost cost;
    private final CudaModule mma;
    private final CudaModule wgmma;
    private final boolean early;
    private final Map<DecodeWork, DecodePlan> plans = new ConcurrentHashMap<>();
    private final Map<DecodeWork, Long> scratchElements = new ConcurrentHashMap<>();
    private final MemorySegment bankStruct;
    private final MemorySegment combineStruct;
    private final MemorySegment prefetchStruct;

    /**
     * The kernels in a context.
     *
     * @param forced what {@link DecodePath#forced} says
     */
    DecodeExperts(CudaContext context, @Nullable DecodePath forced) {
        this.context = context;
        this.forced = forced;
        cost = new DecodeCost(context.device());
        mma = context.module("decode_mma");
        wgmma = context.module("decode_sm90");
        early = context.device().capability() >= CAPABILITY_OF_EARLY_LAUNCH;
        Arena arena = Arena.ofAuto();
        bankStruct = arena.allocate(DecodeBank.LAYOUT);
        combineStruct = arena.allocate(COMBINE_BYTES, DecodeBank.ALIGNMENT);
        prefetchStruct = arena.allocate(PREFETCH_BYTES, DecodeBank.ALIGNMENT);
    }

    /** Whether the experts take this path: where it suits and, unless it is forced, is faster. */
    boolean takes(DType x, Bank routed, @Nullable Bank shared, DType rowType) {
        long tokens = routed.routing().tokens();
        return suits(tokens, x, routed, shared, rowType) && takes(DecodeWork.of(routed, shared));
    }

    private boolean takes(DecodeWork work) {
        return forced == null ? cost.decodes(work) : forced == DecodePath.DECODE;
    }

    private static boolean suits(
            long tokens, DType x, Bank routed, @Nullable Bank shared, DType rowType) {
        if (!routed.hasOneSize()) {
            return false;
        }
        int topK = routed.routing().topK();
        DType weight = routed.experts().gateUp().dtype();
        return DecodePath.suits(tokens, topK, x, weight)
                && rowType == x
                && suits(routed.experts())
                && (shared == null
                        || (shared.experts().gateUp().dtype() == x
                                && shared.experts().hidden() == routed.experts().hidden()
                                && suits(shared.experts())));
    }

    private static boolean suits(ExpertWeights experts) {
        long groups = experts.numExperts();
        long columns = Math.max(experts.gateUp().dim(1), experts.hidden());
        return groups > 0
                && groups <= MAX_GROUPS
                && groups * columns <= Integer.MAX_VALUE
                && experts.hidden() > 0
                && experts.intermediate() > 0;
    }

    /** What any number of tokens up to that of the routing needs on this path, in F32 elements. */
    long scratchElements(DType rowType, Bank routed, @Nullable Bank shared) {
        int topK = Math.max(1, routed.routing().topK());
        long limit = Math.min(DecodePath.MAX_TOKENS, DecodePath.MAX_SLOTS / topK);
        long most = Math.min(routed.routing().tokens(), limit);
        if (!suits(most, rowType, routed, shared, rowType)) {
            return 0;
        }
        DecodeWork work = DecodeWork.of(routed, shared).withTokens(most);
        return scratchElements.computeIfAbsent(work, this::mostScratchElements);
    }

    private long mostScratchElements(DecodeWork work) {
        long most = 0;
        for (long tokens = 1; tokens <= work.tokens(); tokens++) {
            DecodeWork some = work.withTokens(tokens);
            if (takes(some)) {
                most = Math.max(most, DecodePlan.of(some, cost).scratchElements());
            }
        }
        return most;
    }

    void queue(
            Operands on,
            Tensor x,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            Tensor scratch,
            Tensor y) {
        DecodeWork work = DecodeWork.of(routed, shared);
        DecodePlan plan = plans.computeIfAbsent(work, w -> DecodePlan.of(w, cost));
        long alignment = DecodePlan.ALIGNMENT_BYTES;
        long base = Math.ceilDiv(on.scratch(scratch), alignment) * alignment;
        long counters = plan.gateUpArrivals() + plan.sharedGateUpArrivals();
        long arrivals = context.arrivals().address(Math.max(counters, plan.downArrivals()));
        long xAddress = on.in(x);
        Located first = Located.of(on, routed, false, base, base + plan.parts());
        DecodeBank gateUp = first.gateUp(xAddress, arrivals, plan.gateUp().routed());
        DecodeBank down = first.down(plan.down().routed());
        DecodeBank sharedGateUp = DecodeBank.NONE;
        DecodeBank sharedDown = DecodeBank.NONE;
        if (shared != null) {
            long hidden = base + plan.sharedHidden();
            Located second = Located.of(on, shared, true, hidden, base + plan.sharedParts());
            long ofShared = arrivals + Integer.BYTES * plan.gateUpArrivals();
            sharedGateUp = second.gateUp(xAddress, ofShared, plan.gateUp().shared());
            sharedDown = second.down(plan.down().shared());
        }
        queueGateUp(x.dtype(), plan, gateUp, sharedGateUp, down, sharedDown);
        MemorySegment combine = combine(on, routed, shared, residual, y, arrivals);
        queueDown(x.dtype(), plan, down, sharedDown, combine);
    }

    /**
     * A bank on the device, and what the kernels keep for it.
     *
     * @param bank the sizes
     * @param rowToSlot 0 where row r is token r
     */
    private record Located(
            Bank bank,
            long gateUp,
            long down,
            long gateUpBias,
            long downBias,
            long expertOffsets,
            long rowToSlot,
            long inputWeights,
            long hidden,
            long parts) {
        static Located of(Operands on, Bank bank, boolean dense, long hidden, long parts) {
            ExpertWeights experts = bank.experts();
            return new Located(
                    bank,
                    on.in(experts.gateUp()),
                    on.in(experts.down()),
                    on.in(experts.gateUpBias()),
                    on.in(experts.downBias()),
                    on.in(bank.routing().expertOffsets()),
                    dense ? 0 : on.in(bank.routing().rowToSlot()),
                    on.in(bank.inputWeights()),
                    hidden,
                    parts);
        }

        DecodeBank gateUp(long x, long arrivals, int slicesPerUnit) {
            ExpertWeights experts = bank.experts();
            return new DecodeBank(
                    gateUp,
                    gateUpBias,
                    expertOffsets,
                    rowToSlot,
                    inputWeights,
                    x,
                    hidden,
                    parts,
                    arrivals,
                    (int) bank.slots(),
                    experts.numExperts(),
                    Launch.int32("intermediate", experts.intermediate()),
                    Launch.int32("hidden", experts.hidden()),
                    bank.routing().topK(),
                    slicesPerUnit,
                    experts.activation());
        }

        DecodeBank down(int slicesPerUnit) {
            ExpertWeights experts = bank.experts();
            return new DecodeBank(
                    down,
                    downBias,
                    expertOffsets,
                    0,
                    0,
                    hidden,
                    0,
                    parts,
                    0,
                    (int) bank.slots(),
                    experts.numExperts(),
                    Launch.int32("hidden", experts.hidden()),
                    Launch.int32("intermediate", experts.intermediate()),
                    bank.routing().topK(),
                    slicesPerUnit,
                    null);
        }
    }

    private void queueGateUp(
            DType type,
            DecodePlan plan,
            DecodeBank routed,
            DecodeBank shared,
            DecodeBank down,
            DecodeBank sharedDown) {
        boolean onWgmma = onWgmma(routed, shared);
        CudaKernel kernel = kernel("decode_gate_up", type, onWgmma);
        long units = mostUnits(plan.work().gateUp(), plan.gateUp(), routed, shared);
        long blocks = kernel.blocksInTurn(units);
        Launch launch = context.launch().of(kernel);
        passBanks(launch, type, onWgmma, routed, shared);
        if (onWgmma) {
            long tiles = onWgmma(down, sharedDown) ? prefetchedTiles(plan, down, blocks) : 0;
            prefetchStruct.set(JAVA_LONG, 0, down.weight());
            prefetchStruct.set(JAVA_INT, 8, down.columns());
            prefetchStruct.set(JAVA_INT, 12, down.inputs());
            prefetchStruct.set(JAVA_INT, 16, (int) tiles);
            launch.struct(prefetchStruct, DecodeBank.ALIGNMENT);
        }
        run(launch, blocks);
    }

    /** Of the next kernel's weight for each block, so that all together stay in L2. */
    private long prefetchedTiles(DecodePlan plan, DecodeBank down, long blocks) {
        long tileBytes = 2L * DecodeWork.TILE * down.inputs();
        long fitting = context.device().l2Bytes() / L2_SHARE / tileBytes;
        double wanted = plan.work().activeExperts() * plan.downArrivals();
        return (long) (Math.min((double) fitting, wanted) / blocks);
    }

    private void queueDown(
            DType type,
            DecodePlan plan,
            DecodeBank routed,
            DecodeBank shared,
            MemorySegment combine) {
        boolean onWgmma = onWgmma(routed, shared);
        CudaKernel kernel = kernel("decode_down", type, onWgmma);
        long units = mostUnits(plan.work().down(), plan.down(), routed, shared);
        Launch launch = context.launch().of(kernel);
        passBanks(launch, type, onWgmma, routed, shared);
        launch.struct(combine, DecodeBank.ALIGNMENT);
        run(launch, kernel.blocksInTurn(units));
    }

    private static long mostUnits(
            DecodeWork.Product product,
            DecodeCost.Deal deal,
            DecodeBank routed,
            DecodeBank shared) {
        return product.routed().mostUnits(routed.groups(), deal.routed())
                + product.shared().mostUnits(shared.groups(), deal.shared());
    }

    private void run(Launch launch, long blocks) {
        if (early) {
            launch.runCluster(blocks, 1, 1, true);
        } else {
            launch.run(blocks);
        }
    }

    private CudaKernel kernel(String name, DType type, boolean onWgmma) {
        String suffix = type == DType.BF16 ? "_bf16" : "_f16";
        return onWgmma ? wgmma.kernel(name + "_sm90" + suffix) : mma.kernel(name + "_mma" + suffix);
    }

    /** Not by the number of tokens: wgmma and mma.sync differ in how they round. */
    private boolean onWgmma(DecodeBank routed, DecodeBank shared) {
        return context.device().capability() == WgmmaGemm.CAPABILITY
                && isAligned(routed)
                && (shared.groups() == 0 || isAligned(shared));
    }

    private static boolean isAligned(DecodeBank bank) {
        return bank.inputs() % ALIGNED_ELEMENTS == 0
                && (!bank.gated() || bank.outputs() % TensorMap.PAIRED == 0)
                && bank.weight() % ALIGNMENT == 0
                && bank.x() % ALIGNMENT == 0;
    }

    private void passBanks(
            Launch launch, DType type, boolean onWgmma, DecodeBank routed, DecodeBank shared) {
        if (onWgmma) {
            launch.struct(map(type, routed), TensorMap.ALIGNMENT);
            // Where there is no other bank, nobody reads its map.
            DecodeBank other = shared.groups() == 0 ? routed : shared;
            launch.struct(map(type, other), TensorMap.ALIGNMENT);
        }
        routed.pass(launch, bankStruct);
        shared.pass(launch, bankStruct);
    }

    private MemorySegment map(DType type, DecodeBank bank) {
        TensorMap map = context.tensorMap();
        long groups = bank.groups();
        return bank.gated()
                ? map.encodePairs(
                        type, bank.weight(), groups, bank.outputs(), bank.inputs(), DecodeWork.TILE)
                : map.encodeGroups(
                        type,
                        bank.weight(),
                        groups,
                        bank.columns(),
                        bank.inputs(),
                        DecodeWork.TILE);
    }

    /** The DecodeCombine of kernels/common/decode_bank.cuh. */
    private MemorySegment combine(
            Operands on,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            Tensor y,
            long arrivals) {
        Routing routing = routed.routing();
        Tensor addend = residual.addend();
        Tensor identity = residual.identity();
        long[] addresses = {
            on.in(routing.slotToRow()),
            on.in(routing.topkIds()),
            on.in(routed.outputWeights()),
            shared == null ? 0 : on.in(shared.outputWeights()),
            on.in(addend),
            on.in(identity),
            on.out(y),
            arrivals
        };
        int[] numbers = {
            (int) routing.tokens(),
            routing.topK(),
            addend == null ? 0 : KernelCodes.of(addend.dtype()),
            addend == null ? 1 : (int) addend.dim(0),
            identity == null ? 0 : KernelCodes.of(identity.dtype()),
            residual.firstIdentity(),
            KernelCodes.of(y.dtype())
        };
        MemorySegment.copy(addresses, 0, combineStruct, JAVA_LONG, 0, addresses.length);
        long at = 8L * addresses.length;
        MemorySegment.copy(numbers, 0, combineStruct, JAVA_INT, at, numbers.length);
        at += 4L * numbers.length;
        combineStruct.set(JAVA_FLOAT, at, (float) residual.factor());
        return combineStruct;
    }
}
