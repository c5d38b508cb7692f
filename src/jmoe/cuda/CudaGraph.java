package jmoe.cuda;

import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.JCudaDriver;

import jmoe.ops.Replay;

/** Operations as a graph of the driver, which launches all of them in one call. */
final class CudaGraph implements Replay {
    private final CudaContext context;
    private final CUgraphExec executable = new CUgraphExec();
    private boolean closed;

    /** Captures what is queued meanwhile; needs a turn of the context. */
    CudaGraph(CudaContext context, Runnable operations) {
        this.context = context;
        CUgraph graph = record(operations);
        try {
            context.check(
                    JCudaDriver.cuGraphInstantiate(executable, graph, 0), "cuGraphInstantiate");
        } finally {
            context.checkRelease(JCudaDriver.cuGraphDestroy(graph), "cuGraphDestroy");
        }
        context.add(this);
    }

    private CUgraph record(Runnable operations) {
        CudaStream stream = context.stream();
        CUgraph graph = new CUgraph();
        // Other threads may do with other streams what they like.
        context.check(
                JCudaDriver.cuStreamBeginCapture(
                        stream.handle(), CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                "cuStreamBeginCapture");
        context.setCapturing(true);
        boolean complete = false;
        try {
            operations.run();
            complete = true;
        } finally {
            context.setCapturing(false);
            int code = JCudaDriver.cuStreamEndCapture(stream.handle(), graph);
            if (code != CudaDriver.SUCCESS) {
                // A stream that still captures would swallow everything that is queued.
                JCudaDriver.cuStreamEndCapture(stream.handle(), new CUgraph());
            }
            if (complete) {
                context.check(code, "cuStreamEndCapture");
            } else if (code == CudaDriver.SUCCESS) {
                JCudaDriver.cuGraphDestroy(graph);
            }
        }
        return graph;
    }

    @Override
    public void run() {
        context.enter();
        try {
            if (closed) {
                throw new IllegalStateException("replay: closed; capture the operations again");
            }
            context.refuseInCapture("a replay");
            int code = JCudaDriver.cuGraphLaunch(executable, context.stream().handle());
            context.launched("a replayed graph", code, "cuGraphLaunch");
        } finally {
            context.exit();
        }
    }

    /** Waits until the device is done with it. */
    @Override
    public void close() {
        if (!context.enterIfOpen()) {
            return;
        }
        try {
            if (!closed) {
                context.remove(this);
                try {
                    context.stream().synchronise();
                } finally {
                    destroy();
                }
            }
        } finally {
            context.exit();
        }
    }

    /** Gives the graph back; the device must be done with it. */
    void destroy() {
        closed = true;
        context.checkRelease(JCudaDriver.cuGraphExecDestroy(executable), "cuGraphExecDestroy");
    }
}
