package app.edgespec.bridge;

import java.util.Map;

/** Reads values of the engine's replies; what is not there is 0, false or "". */
final class Reply {
    private Reply() {}

    static double number(Map<String, Object> reply, String key) {
        Object value = reply.get(key);
        return value instanceof Number ? ((Number) value).doubleValue() : 0;
    }

    static int whole(Map<String, Object> reply, String key) {
        return (int) number(reply, key);
    }

    static boolean truth(Map<String, Object> reply, String key) {
        return Boolean.TRUE.equals(reply.get(key));
    }

    static String text(Map<String, Object> reply, String key) {
        Object value = reply.get(key);
        return value == null ? "" : value.toString();
    }
}
