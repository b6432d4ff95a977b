package app.edgespec.bridge;

import java.util.List;
import java.util.Map;

/**
 * EdgeSpec's engine as an app sees it. Nothing is thrown: every method says what went wrong.
 *
 * <p>{@link #cancel}, {@link #stats} and {@link #adjust} may be called from any thread, all else
 * from one.
 */
public interface EngineBridge extends AutoCloseable {
    /**
     * Opens models, in place of those that are open.
     *
     * @param settings keywords of edgespec.load ("model", "draft_model", "speculative", ...), and
     *     "files", "libraries", "memory_bytes" of the device
     */
    Outcome<OpenModel> open(Map<String, ?> settings, ProgressSink progress);

    /** Answers a conversation that ends with a question; returns once the answer is over. */
    Outcome<Figures> generate(List<Message> conversation, TokenSink sink);

    /** Ends the answer or the measurement in progress, which keeps what it has said. */
    void cancel();

    /** Of the answer in progress, or of the last one. */
    Outcome<Figures> stats();

    /** The same questions with and without drafting. */
    Outcome<Comparison> benchmark(List<String> questions, ProgressSink progress);

    /**
     * Tells how the device is, so that less of it may be used.
     *
     * @return why less is used, "" for nothing
     */
    Outcome<String> adjust(Map<String, ?> conditions);

    /**
     * Serves OpenAI's interface to other apps of this device that know the key.
     *
     * @return its address
     */
    Outcome<String> serve(String key, int port);

    /** The address that is served, "" for none. */
    Outcome<String> serving();

    Outcome<Void> stopServing();

    /** Frees the models until they are needed again, unless they are being served. */
    Outcome<Void> unload();

    /** Writes a conversation to a file. */
    Outcome<Void> save(String path, List<Message> conversation);

    /** Reads one that was saved. */
    Outcome<Void> load(String path, MessageSink sink);

    /** Frees everything. */
    @Override
    void close();
}
