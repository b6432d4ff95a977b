package app.edgespec.demo;

import android.content.Context;
import com.chaquo.python.PyObject;
import com.chaquo.python.Python;
import com.chaquo.python.android.AndroidPlatform;
import app.edgespec.bridge.Caller;
import java.util.HashMap;
import java.util.Map;

/** Calls the engine in the CPython that Chaquopy runs in this app's process. */
final class ChaquopyCaller implements Caller {
    private final Context context;
    private PyObject engine;

    ChaquopyCaller(Context context) {
        this.context = context;
    }

    @Override
    public Map<String, Object> call(String method, Object... arguments) {
        Map<String, Object> values = new HashMap<>();
        PyObject reply = engine().callAttr(method, arguments);
        for (Map.Entry<PyObject, PyObject> entry : reply.asMap().entrySet()) {
            values.put(entry.getKey().toString(), value(entry.getValue()));
        }
        return values;
    }

    /** The Python object, made by the first call, which takes a moment. */
    private synchronized PyObject engine() {
        if (engine == null) {
            if (!Python.isStarted()) {
                Python.start(new AndroidPlatform(context));
            }
            engine = Python.getInstance().getModule("edgespec.phone.engine").callAttr("Engine");
        }
        return engine;
    }

    /** A text, number or truth value of Python's as Java's. */
    private static Object value(PyObject value) {
        String type = value.type().get("__name__").toString();
        switch (type) {
            case "bool":
                return value.toBoolean();
            case "int":
                return value.toLong();
            case "float":
                return value.toDouble();
            default:
                return value.toString();
        }
    }
}
