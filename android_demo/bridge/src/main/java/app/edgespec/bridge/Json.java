package app.edgespec.bridge;

import java.util.List;
import java.util.Map;

/** Writes what the engine is told; it reads nothing. */
public final class Json {
    private Json() {}

    /** An object of texts, numbers and truth values. */
    public static String object(Map<String, ?> values) {
        StringBuilder out = new StringBuilder("{");
        for (Map.Entry<String, ?> entry : values.entrySet()) {
            separate(out);
            out.append(quoted(entry.getKey())).append(':').append(value(entry.getValue()));
        }
        return out.append('}').toString();
    }

    /** A list of texts. */
    public static String list(List<String> texts) {
        StringBuilder out = new StringBuilder("[");
        for (String text : texts) {
            separate(out);
            out.append(quoted(text));
        }
        return out.append(']').toString();
    }

    /** A conversation, as {"role", "content"}. */
    public static String messages(List<Message> messages) {
        StringBuilder out = new StringBuilder("[");
        for (Message message : messages) {
            separate(out);
            out.append("{\"role\":").append(quoted(message.role));
            out.append(",\"content\":").append(quoted(message.text())).append('}');
        }
        return out.append(']').toString();
    }

    private static String value(Object value) {
        boolean isBare = value instanceof Number || value instanceof Boolean;
        return isBare ? value.toString() : quoted(value.toString());
    }

    private static void separate(StringBuilder out) {
        if (out.length() > 1) {
            out.append(',');
        }
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                out.append('\\').append(letter);
            } else if (letter < ' ' || Character.isSurrogate(letter)) {
                out.append(String.format("\\u%04x", (int) letter));
            } else {
                out.append(letter);
            }
        }
        return out.append('"').toString();
    }
}
