package app.edgespec.bridge;

import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** The engine in Python, in this process. */
public final class PythonEngine implements EngineBridge {
    private final Caller python;

    public PythonEngine(Caller python) {
        this.python = python;
    }

    @Override
    public Outcome<OpenModel> open(Map<String, ?> settings, ProgressSink progress) {
        return call(OpenModel::new, "open_session", Json.object(settings), progress);
    }

    @Override
    public Outcome<Figures> generate(List<Message> conversation, TokenSink sink) {
        return call(Figures::new, "generate", Json.messages(conversation), sink);
    }

    @Override
    public void cancel() {
        call(reply -> null, "cancel");
    }

    @Override
    public Outcome<Figures> stats() {
        return call(Figures::new, "stats");
    }

    @Override
    public Outcome<Comparison> benchmark(List<String> questions, ProgressSink progress) {
        return call(Comparison::new, "benchmark", Json.list(questions), progress);
    }

    @Override
    public Outcome<String> adjust(Map<String, ?> conditions) {
        return call(reply -> Reply.text(reply, "why"), "adjust", Json.object(conditions));
    }

    @Override
    public Outcome<String> serve(String key, int port) {
        return call(reply -> Reply.text(reply, "url"), "serve", key, port);
    }

    @Override
    public Outcome<String> serving() {
        return call(reply -> Reply.text(reply, "url"), "serving");
    }

    @Override
    public Outcome<Void> stopServing() {
        return call(reply -> null, "stop_serving");
    }

    @Override
    public Outcome<Void> unload() {
        return call(reply -> null, "unload");
    }

    @Override
    public Outcome<Void> save(String path, List<Message> conversation) {
        return call(reply -> null, "save", path, Json.messages(conversation));
    }

    @Override
    public Outcome<Void> load(String path, MessageSink sink) {
        return call(reply -> null, "load", path, sink);
    }

    @Override
    public void close() {
        call(reply -> null, "close");
    }

    private <T> Outcome<T> call(
            Function<Map<String, Object>, T> read, String method, Object... arguments) {
        try {
            return Outcome.of(python.call(method, arguments), read);
        } catch (RuntimeException error) {
            String said = String.valueOf(error.getMessage()).split("\n", 2)[0];
            return Outcome.failed(new EngineError(EngineError.FAULT, method + ": " + said));
        }
    }
}
