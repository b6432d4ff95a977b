package app.edgespec.bridge;

import java.util.Map;

/**
 * Calls a method of {@code edgespec.phone.engine.Engine}: all that differs between one way into
 * Python and another.
 */
public interface Caller {
    /**
     * The reply, whose values are texts, numbers and truth values.
     *
     * @param method a name, as in "open_session"
     * @param arguments texts, numbers, sinks, or null for none
     * @throws RuntimeException if Python itself fails; the engine's own errors are replies
     */
    Map<String, Object> call(String method, Object... arguments);
}
