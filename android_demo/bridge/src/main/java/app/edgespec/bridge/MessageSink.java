package app.edgespec.bridge;

/** Hears the messages of a saved conversation, in order. */
@FunctionalInterface
public interface MessageSink {
    /** One message; role is "system", "user" or "assistant". */
    void onMessage(String role, String text);
}
