package app.edgespec.bridge;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/**
 * What a chat screen shows and does: the conversation, its state, its figures.
 *
 * <p>Methods return at once and may be called from any thread; the engine works on a thread of its
 * own. After each change the screen is told to look again.
 */
public final class ChatModel {
    /** What the engine is doing. */
    public enum State {
        CLOSED,
        LOADING,
        READY,
        ANSWERING,
        MEASURING
    }

    /** Tokens after which the figures of an answer in progress are read again. */
    private static final int FIGURES_EVERY = 8;

    private final EngineBridge engine;
    private final Executor thread;
    private final Runnable changed;
    private final List<Message> messages = new ArrayList<>();

    private State state = State.CLOSED;
    private OpenModel model;
    private Figures figures;
    private Comparison comparison;
    private EngineError error;
    private String status = "";
    private String address = "";
    private String kept = "";
    private int attempts;
    private volatile boolean stopping;

    /**
     * A model with nothing open.
     *
     * @param thread runs one task at a time, in order
     * @param changed called after each change, on any thread
     */
    public ChatModel(EngineBridge engine, Executor thread, Runnable changed) {
        this.engine = engine;
        this.thread = thread;
        this.changed = changed;
    }

    public synchronized State state() {
        return state;
    }

    public synchronized List<Message> messages() {
        return new ArrayList<>(messages);
    }

    /** What is open, null for nothing. */
    public synchronized OpenModel model() {
        return model;
    }

    /** Of the answer in progress or the last one, null before the first. */
    public synchronized Figures figures() {
        return figures;
    }

    /** What the last measurement found, null before the first. */
    public synchronized Comparison comparison() {
        return comparison;
    }

    /** What went wrong last, null once something went well. */
    public synchronized EngineError error() {
        return error;
    }

    /** What takes a while, in words, "" for nothing. */
    public synchronized String status() {
        return status;
    }

    /** Where the models are served, "" for nowhere. */
    public synchronized String address() {
        return address;
    }

    /** Whether models are served, or an attempt to serve them is under way. */
    public synchronized boolean isServing() {
        return attempts > 0 || !address.isEmpty();
    }

    /** The file that the conversation is kept in, "" for none. */
    public synchronized String kept() {
        return kept;
    }

    /** Opens models in place of those that are open; see {@link EngineBridge#open}. */
    public boolean open(Map<String, ?> settings) {
        return start(State.LOADING, () -> {
            Outcome<OpenModel> found = engine.open(settings, this::tell);
            synchronized (this) {
                model = found.isError() ? model : found.value;
            }
            look();
            return found.error;
        });
    }

    /** Asks a question; false if the engine is busy or nothing is open. */
    public boolean ask(String question) {
        synchronized (this) {
            if (state != State.READY || question.trim().isEmpty()) {
                return false;
            }
            dropLast(Message.USER); // a question that was never answered
            messages.add(new Message(Message.USER, question));
        }
        return start(State.ANSWERING, this::answer);
    }

    /** Answers the last question again. */
    public boolean regenerate() {
        synchronized (this) {
            if (state != State.READY || messages.isEmpty()) {
                return false;
            }
            dropLast(Message.ASSISTANT);
        }
        return start(State.ANSWERING, this::answer);
    }

    /** Ends the answer or the measurement in progress. */
    public void stop() {
        stopping = true;
        engine.cancel();
    }

    /** Measures the same questions with and without drafting. */
    public boolean measure(List<String> questions) {
        return start(State.MEASURING, () -> {
            if (stopping) {
                return null;
            }
            Outcome<Comparison> found = engine.benchmark(questions, (what, share) -> {
                tell(what, share);
                if (stopping) {
                    engine.cancel(); // it may not have been measuring yet when it was told to end
                }
            });
            synchronized (this) {
                comparison = found.isError() ? comparison : found.value;
            }
            return found.error;
        });
    }

    /**
     * Forgets the conversation; false while one is being answered.
     *
     * @param path the file that the next one is kept in after each answer, "" for none
     */
    public synchronized boolean clear(String path) {
        if (state == State.ANSWERING) {
            return false;
        }
        messages.clear();
        kept = path;
        figures = null;
        changed.run();
        return true;
    }

    /** Tells how warm and how empty the device is. */
    public void adjust(Map<String, ?> conditions) {
        engine.adjust(conditions);
    }

    /** Frees the models until the next question, if nobody uses them now. */
    public void unload() {
        thread.execute(engine::unload);
    }

    /** Serves the open models to other apps of this device. */
    public void serve(String key, int port) {
        synchronized (this) {
            attempts++;
        }
        thread.execute(() -> {
            EngineError failed = engine.serve(key, port).error;
            look();
            synchronized (this) {
                attempts--;
            }
            note(failed);
        });
    }

    public void stopServing() {
        thread.execute(() -> {
            EngineError failed = engine.stopServing().error;
            look();
            note(failed == null ? error() : failed); // what went wrong before stays to be read
        });
    }

    /** Goes on with a conversation that was kept; false while another is being answered. */
    public boolean load(String path) {
        synchronized (this) {
            if (state == State.ANSWERING) {
                return false;
            }
        }
        thread.execute(() -> {
            List<Message> found = new ArrayList<>();
            Outcome<Void> read =
                    engine.load(path, (role, text) -> found.add(new Message(role, text)));
            synchronized (this) {
                if (!read.isError() && state != State.ANSWERING) {
                    messages.clear();
                    messages.addAll(found);
                    kept = path;
                }
            }
            note(read.error);
        });
        return true;
    }

    /** The engine's work on an answer, which is then kept; what went wrong. */
    private EngineError answer() {
        EngineError failed = stopping ? null : generate();
        EngineError unkept = kept().isEmpty() ? null : engine.save(kept(), messages()).error;
        return failed == null ? unkept : failed;
    }

    private EngineError generate() {
        Message answer = new Message(Message.ASSISTANT, "");
        List<Message> asked = messages();
        int[] count = {0};
        Outcome<Figures> found = engine.generate(asked, (piece, fromDraft) -> {
            answer.append(piece, fromDraft);
            heard(answer, count[0]++);
            return !stopping;
        });
        synchronized (this) {
            figures = found.isError() ? figures : found.value;
        }
        return found.error;
    }

    private void heard(Message answer, int count) {
        Outcome<Figures> found = count % FIGURES_EVERY == 1 ? engine.stats() : null;
        synchronized (this) {
            if (count == 0) {
                messages.add(answer);
                status = "";
            }
            figures = found == null || found.isError() ? figures : found.value;
        }
        changed.run();
    }

    /** Has the engine work, unless it works already or has nothing open. */
    private boolean start(State next, Supplier<EngineError> work) {
        synchronized (this) {
            boolean isOpening = next == State.LOADING && state == State.CLOSED;
            if (state != State.READY && !isOpening) {
                return false;
            }
            state = next;
            stopping = false;
            error = null;
        }
        changed.run();
        thread.execute(() -> {
            EngineError failed = work.get();
            synchronized (this) {
                state = model == null ? State.CLOSED : State.READY;
                status = "";
            }
            note(failed);
        });
        return true;
    }

    private void tell(String what, double share) {
        synchronized (this) {
            status = share < 1 ? Figures.format("%s, %.0f%%", what, 100 * share) : "";
        }
        changed.run();
    }

    /** Where the engine serves now, after what may have begun or ended that. */
    private void look() {
        Outcome<String> found = engine.serving();
        synchronized (this) {
            address = found.isError() ? "" : found.value;
        }
    }

    private void note(EngineError failed) {
        synchronized (this) {
            error = failed;
        }
        changed.run();
    }

    private void dropLast(String role) {
        int last = messages.size() - 1;
        if (last >= 0 && messages.get(last).isOf(role)) {
            messages.remove(last);
        }
    }
}
