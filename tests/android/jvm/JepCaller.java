import app.edgespec.bridge.Caller;
import java.util.Map;
import jep.JepConfig;
import jep.SharedInterpreter;

/** Calls the engine in a CPython within this JVM; the app has Chaquopy in its place. */
final class JepCaller implements Caller {
    private static final String START =
            "import builtins\n"
                    + "from edgespec.phone.engine import Engine\n"
                    + "builtins.edgespec_engine = getattr(builtins, 'edgespec_engine', None) or Engine()\n"
                    + "def call(method, *arguments):\n"
                    + "    return getattr(builtins.edgespec_engine, method)(*arguments)\n";

    /** Each thread has an interpreter of its own; modules and objects are shared. */
    private final ThreadLocal<SharedInterpreter> interpreters =
            ThreadLocal.withInitial(
                    () -> {
                        SharedInterpreter interpreter = new SharedInterpreter();
                        interpreter.exec(START);
                        return interpreter;
                    });

    /** Where Python finds its modules. */
    JepCaller(String... paths) {
        SharedInterpreter.setConfig(new JepConfig().addIncludePaths(paths));
    }

    @Override
    @SuppressWarnings("unchecked")
    public Map<String, Object> call(String method, Object... arguments) {
        Object[] all = new Object[arguments.length + 1];
        all[0] = method;
        System.arraycopy(arguments, 0, all, 1, arguments.length);
        return (Map<String, Object>) interpreters.get().invoke("call", all);
    }
}
