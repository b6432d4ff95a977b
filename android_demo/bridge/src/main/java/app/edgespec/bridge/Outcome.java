package app.edgespec.bridge;

import java.util.Map;
import java.util.function.Function;

/** A value, or what went wrong instead. */
public final class Outcome<T> {
    /** Null if something went wrong. */
    public final T value;

    /** Null if nothing went wrong. */
    public final EngineError error;

    private Outcome(T value, EngineError error) {
        this.value = value;
        this.error = error;
    }

    /** What a reply of the engine says: an error, or what {@code read} makes of it. */
    static <T> Outcome<T> of(Map<String, Object> reply, Function<Map<String, Object>, T> read) {
        Object kind = reply.get("error");
        if (kind != null) {
            return failed(new EngineError(kind.toString(), String.valueOf(reply.get("message"))));
        }
        return new Outcome<>(read.apply(reply), null);
    }

    static <T> Outcome<T> failed(EngineError error) {
        return new Outcome<>(null, error);
    }

    public boolean isError() {
        return error != null;
    }
}
