package app.edgespec.bridge;

/** Hears of what takes a while. */
@FunctionalInterface
public interface ProgressSink {
    /**
     * How far it is, on the thread that does it.
     *
     * @param what in a few words, as in "loading target.gguf"
     * @param share of it that is done, 0 to 1
     */
    void onProgress(String what, double share);
}
