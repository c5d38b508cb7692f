/**
 * The operations on an NVIDIA GPU.
 *
 * <p>Users need {@link jmoe.cuda.CudaKernels}, {@link jmoe.cuda.CudaProbe} and what these return.
 * Behind them, from the driver up:
 *
 * <ul>
 *   <li>{@code CudaDriver}: the driver library and the calls that do not go through JCuda; {@code
 *       JCudaPointers}: JCuda's objects as numbers;
 *   <li>{@code CudaContext}: the device's primary context and whose turn it is; {@code CudaStream},
 *       {@code CudaEvent}: its queue and marks in it;
 *   <li>{@code CudaMemory}: allocations; {@code Scratch}: what lies between the kernels of one
 *       operation; {@code Staging}: copies from and to the host;
 *   <li>{@code CudaModule}, {@code CudaKernel}: compiled kernels and their constants; {@code
 *       Launch}, {@code LaunchConfig}: their arguments and their start; {@code TensorMap}: a matrix
 *       for the tensor memory accelerator;
 *   <li>{@code GroupedGemm}: the product, by {@code WgmmaGemm}, {@code MmaGemm} or {@code
 *       SimtGemm}; {@code GemmArguments}: what their kernels are given; {@code Tile}, {@code
 *       TileKernels}, {@code TileCost}: how they divide the work, and what that should take;
 *   <li>{@code Operands}: host tensors on their way through an operation; {@code Route}, {@code
 *       SortByExpert}: the operations of several kernels; {@code RouteRule}, {@code KernelCodes}: a
 *       routing rule and other choices as kernels read them.
 * </ul>
 *
 * <p>{@code CudaGraph} is what a capture makes of operations.
 *
 * <p>Flight Recorder shows launches, copies and allocations as {@code jmoe.KernelLaunch}, {@code
 * jmoe.DeviceCopy} and {@code jmoe.DeviceAllocation}.
 *
 * <p>System properties: {@code jmoe.cuda.driver}, path of the driver library; {@code
 * jmoe.cuda.device}, number of the device; {@code jmoe.cuda.tile}, tile of the products; {@code
 * jmoe.cuda.leaks=true}, remember where memory was allocated; {@code jmoe.sync=true}, wait for each
 * kernel.
 */
@NullMarked
package jmoe.cuda;

import org.jspecify.annotations.NullMarked;
