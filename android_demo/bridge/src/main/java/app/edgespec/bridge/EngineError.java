package app.edgespec.bridge;

/** What went wrong, as a value that a screen can show. */
public final class EngineError {
    /** The kind of an error within the bridge or of Python itself. */
    public static final String FAULT = "Fault";

    /** Of the engine's errors, as in "ModelFileError", or {@link #FAULT}. */
    public final String kind;

    /** One line: what was seen, what was expected, what to do. */
    public final String message;

    public EngineError(String kind, String message) {
        this.kind = kind;
        this.message = message;
    }

    @Override
    public String toString() {
        return kind + ": " + message;
    }
}
