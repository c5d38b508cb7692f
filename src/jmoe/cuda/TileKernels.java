package jmoe.cuda;

import java.util.EnumMap;
import java.util.Map;

/** The kernels that differ in their tile, loaded on first use. */
final class TileKernels {
    private final CudaModule module;
    private final String prefix;
    private final String suffix;
    private final Map<Tile, CudaKernel> kernels = new EnumMap<>(Tile.class);

    /**
     * None loaded yet.
     *
     * @param prefix of their symbols, in front of the tile's label
     * @param suffix of their symbols, behind it
     */
    TileKernels(CudaModule module, String prefix, String suffix) {
        this.module = module;
        this.prefix = prefix;
        this.suffix = suffix;
    }

    CudaKernel of(Tile tile) {
        CudaKernel kernel = kernels.get(tile);
        if (kernel == null) {
            kernel = module.kernel(prefix + tile.label() + suffix);
            kernels.put(tile, kernel);
        }
        return kernel;
    }
}
